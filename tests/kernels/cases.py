"""Random operands for the kernel tests.

Legend: as in ingle/kernels/reference.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ingle.models.batch import PAGE_TOKENS, StepBatch


def near(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Fail unless the largest difference is small beside the largest expected value."""
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    if expected.numel():
        error = (actual - expected).abs().max() / expected.abs().max().clamp_min(1e-6)
        assert float(error) < tolerance, f"relative error {float(error):.2e}"


def rope_tables(positions: int, rope: int) -> tuple[Tensor, Tensor]:
    """cos and sin [positions, rope / 2]."""
    frequency = 10000.0 ** -(torch.arange(0, rope, 2) / rope)
    angle = torch.arange(positions)[:, None] * frequency
    return angle.cos(), angle.sin()


@dataclass
class Paged:
    """Several sequences in shuffled pages, some rows of each, and everything else NaN."""

    batch: StepBatch
    cache_PGC: Tensor
    q_NHQ: Tensor
    kv_b_OL: Tensor
    scale: float

    def arguments(self, rows: Tensor | None = None) -> tuple[Tensor, ...]:
        """Operands of mla_attention before `scale`, for all rows or for some in a given order."""
        pick = slice(None) if rows is None else rows
        batch = self.batch
        return (
            self.q_NHQ[pick].contiguous(),
            self.kv_b_OL,
            self.cache_PGC,
            batch.pages_SP,
            batch.sequence_N[pick],
            batch.positions_N[pick],
        )


def paged(
    spans: list[tuple[int, int]],
    heads: int,
    rank: int,
    rope: int,
    nope: int,
    value: int,
    weight: torch.dtype = torch.float32,
    cache: torch.dtype = torch.float32,
    seed: int = 0,
) -> Paged:
    """`spans`: per sequence the first position and the number of rows of this step."""
    torch.manual_seed(seed)
    needed = [-(-(start + count) // PAGE_TOKENS) for start, count in spans]
    order = torch.randperm(sum(needed) + 3).tolist()
    cache_PGC = torch.full((len(order), PAGE_TOKENS, rank + rope), float("nan"), dtype=cache)
    rows = []
    for (start, count), pages in zip(spans, needed, strict=True):
        mine = [order.pop() for _ in range(pages)]
        length = start + count
        filled = torch.full((pages * PAGE_TOKENS, rank + rope), float("nan"))
        filled[:length] = torch.randn(length, rank + rope)
        cache_PGC[mine] = filled.view(pages, PAGE_TOKENS, -1).to(cache)
        rows.append(([0] * count, start, mine))
    batch = StepBatch.build(rows)
    total = batch.tokens_N.numel()
    kv_b_OL = (torch.randn(heads * (nope + value), rank) / rank**0.5).to(weight)
    return Paged(
        batch, cache_PGC, torch.randn(total, heads, nope + rope), kv_b_OL, (nope + rope) ** -0.5
    )
