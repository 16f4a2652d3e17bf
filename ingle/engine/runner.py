"""Runs the model on what the scheduler chose: sequences -> StepBatch -> hidden rows and logits.

Legend: N rows of a step, D model width, V vocabulary, S sequences, P pages, L layers, G page
tokens, C cached values per token, T tokens of a sequence, M mixture layers, K experts chosen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ingle.engine.cache import LatentCache
from ingle.models.batch import PAGE_TOKENS, StepBatch


class StepModel(Protocol):
    """What the engine needs of a model; `ingle.models` has the real one."""

    config: Any

    @property
    def num_mtp(self) -> int: ...
    def cache_shape(self, pages: int) -> tuple[int, ...]: ...
    def step(self, batch: StepBatch, cache_LPGC: Tensor) -> Tensor: ...
    def logits(self, hidden_ND: Tensor) -> Tensor: ...
    def mtp_step(self, hidden_ND: Tensor, batch: StepBatch, cache_PGC: Tensor) -> Tensor: ...
    def mtp_logits(self, hidden_ND: Tensor) -> Tensor: ...


class Span:
    """Consecutive tokens of one sequence in a batch; `lane` is its row of the page table."""

    __slots__ = ("lane", "start", "tokens")

    def __init__(self, lane: int, start: int, tokens: list[int]) -> None:
        self.lane, self.start, self.tokens = lane, start, tokens


class Runner:
    """The model, its cache, and the page table of the running sequences."""

    def __init__(self, model: StepModel, cache: LatentCache, lanes: int, context: int) -> None:
        self.model = model
        self.cache = cache
        width = -(-context // PAGE_TOKENS)
        self.table: NDArray[np.int32] = np.full((lanes, width), -1, dtype=np.int32)

    def batch(self, spans: list[Span]) -> StepBatch:
        """The same as `StepBatch.build`, from the page table and without a loop over rows."""
        ends = [span.start + len(span.tokens) for span in spans]
        lanes = [span.lane for span in spans]
        pages_SP = self.table[lanes, : -(-max(ends) // PAGE_TOKENS)]
        tokens = [token for span in spans for token in span.tokens]
        places_3N = np.empty((3, len(tokens)), dtype=np.int32)  # position, slot, sequence
        if len(tokens) == len(spans):  # the common case: one token per sequence
            places_3N[0] = [span.start for span in spans]
            places_3N[2] = range(len(spans))
        else:
            first = 0
            for index, span in enumerate(spans):
                last = first + len(span.tokens)
                places_3N[0, first:last] = np.arange(span.start, ends[index])
                places_3N[2, first:last] = index
                first = last
        page_N, offset_N = np.divmod(places_3N[0], PAGE_TOKENS)
        places_3N[1] = pages_SP[places_3N[2], page_N] * PAGE_TOKENS + offset_N
        positions_N, slots_N, sequence_N = torch.from_numpy(places_3N).unbind(0)
        return StepBatch(
            torch.from_numpy(np.array(tokens, dtype=np.int64)),
            positions_N,
            slots_N,
            sequence_N,
            torch.from_numpy(pages_SP),
        )

    def forward(self, spans: list[Span]) -> Tensor:
        """Compute all rows and write their latents; returns the hidden rows [N, D]."""
        batch, routes_SMK = self.batch(spans), self.cache.routes_SMK
        if routes_SMK is None:
            return self.model.step(batch, self.cache.latents_LPGC)
        mixtures, chosen = routes_SMK.shape[1:]
        chosen_MNK = torch.empty(mixtures, len(batch.tokens_N), chosen, dtype=torch.uint8)
        batch = replace(batch, chosen_MNK=chosen_MNK)
        hidden_ND = self.model.step(batch, self.cache.latents_LPGC)
        routes_SMK[batch.slots_N.numpy()] = chosen_MNK.transpose(0, 1).numpy()
        return hidden_ND

    def routes(self, lane: int, count: int) -> NDArray[np.uint8] | None:
        """The experts that the first tokens of a sequence chose [T, M, K], where they are kept."""
        if self.cache.routes_SMK is None:
            return None
        page_T, offset_T = np.divmod(np.arange(count), PAGE_TOKENS)
        return self.cache.routes_SMK[self.table[lane, page_T] * PAGE_TOKENS + offset_T]

    def forward_mtp(self, hidden_ND: Tensor, spans: list[Span]) -> Tensor:
        """One pass of the MTP module over rows whose token is the one after their position."""
        assert self.cache.mtp_PGC is not None
        return self.model.mtp_step(hidden_ND, self.batch(spans), self.cache.mtp_PGC)

    def logits(self, hidden_ND: Tensor, rows: list[int]) -> NDArray[np.float32]:
        """Logits of the chosen rows, in fp32."""
        return _numpy(self.model.logits(pick(hidden_ND, rows)))

    def mtp_logits(self, hidden_ND: Tensor, rows: list[int]) -> NDArray[np.float32]:
        return _numpy(self.model.mtp_logits(pick(hidden_ND, rows)))


def pick(hidden_ND: Tensor, rows: list[int]) -> Tensor:
    """The rows in ascending order, without a copy where all are wanted."""
    if len(rows) == hidden_ND.shape[0]:
        return hidden_ND
    return hidden_ND[torch.tensor(rows)]


def _numpy(logits_NV: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = logits_NV.float().numpy()
    return array
