"""A model whose logits are a hash of the sequence's tokens, read back through the paged cache.

It checks what a real model cannot: every row must find its whole prefix, position by position, in
the pages of its sequence. Legend: N rows, D = 3 chunks of a 64-bit hash, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ingle.models.batch import PAGE_TOKENS, StepBatch

_MASK = (1 << 64) - 1
_CHUNK = 22  # bits of the hash per hidden value: exact in fp32


@dataclass(frozen=True)
class FakeConfig:
    vocab_size: int = 300
    max_position_embeddings: int = 1024
    eos_ids: tuple[int, ...] = ()


class FakeModel:
    """Deterministic, batch invariant. `agreement` in [0, 1] is how good its MTP module is."""

    def __init__(
        self, config: FakeConfig | None = None, num_mtp: int = 0, agreement: float = 1.0
    ) -> None:
        self.config = config or FakeConfig()
        self.num_mtp = num_mtp
        self.agreement = agreement
        self.mtp_mismatches = 0
        self.on_step: Callable[[StepBatch], None] | None = None
        rng = np.random.default_rng(0)
        self._weights_T = rng.integers(
            1 << 63, size=self.config.max_position_embeddings + 8, dtype=np.uint64
        )
        self._main: Tensor | None = None

    def cache_shape(self, pages: int) -> tuple[int, int, int, int]:
        return (1, pages, PAGE_TOKENS, 2)

    def step(self, batch: StepBatch, cache_LPGC: Tensor) -> Tensor:
        if self.on_step is not None:
            self.on_step(batch)
        self._main = cache_LPGC[0]
        _write(batch, cache_LPGC[0], batch.tokens_N)
        hashes = []
        for n, position in enumerate(batch.positions_N.tolist()):
            seen = _read(batch, cache_LPGC[0], n)
            assert (seen[:, 1] == np.arange(position + 1)).all(), "a page is not where it should be"
            ids = seen[:, 0].astype(np.uint64) + np.uint64(1)
            hashes.append(int((ids * self._weights_T[: position + 1]).sum()) & _MASK)
        return _pack(hashes)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        rows = [self._row(value) for value in _unpack(hidden_ND)]
        return torch.from_numpy(np.stack(rows))

    def mtp_step(self, hidden_ND: Tensor, batch: StepBatch, cache_PGC: Tensor) -> Tensor:
        assert self._main is not None
        _write(batch, cache_PGC, batch.tokens_N)
        hashes = []
        for n, value in enumerate(_unpack(hidden_ND)):
            position, token = int(batch.positions_N[n]), int(batch.tokens_N[n])
            # The slot of position q holds the token at q + 1. A page's last slot may come from
            # another continuation; the newest positions may be drafts.
            own, main = _read(batch, cache_PGC, n), _read(batch, self._main, n)
            wrong = own[:-4, 0] != main[1 : len(main) - 3, 0]
            wrong[PAGE_TOKENS - 1 :: PAGE_TOKENS] = False
            self.mtp_mismatches += int(wrong.sum())
            weight = int(self._weights_T[position + 1])
            hashes.append((value + (token + 1) * weight) & _MASK)
        return _pack(hashes)

    def mtp_logits(self, hidden_ND: Tensor) -> Tensor:
        rows = []
        for value in _unpack(hidden_ND):
            other = self._row(value ^ 0x5DEECE66D)
            rows.append(self.agreement * self._row(value) + (1 - self.agreement) * other)
        return torch.from_numpy(np.stack(rows))

    def distribution(self, tokens: list[int]) -> NDArray[np.float64]:
        """The exact distribution of the token after these."""
        ids = np.array(tokens, dtype=np.uint64) + np.uint64(1)
        value = int((ids * self._weights_T[: len(tokens)]).sum()) & _MASK
        x = self._row(value).astype(np.float64)
        weights = np.exp(x - x.max())
        p: NDArray[np.float64] = weights / weights.sum()
        return p

    def _row(self, value: int) -> NDArray[np.float32]:
        return _random_row(value, self.config.vocab_size)


class FakeTokenizer:
    """Ids 0..255 are bytes; 256 begins, 257 ends a text; the rest has no text."""

    bos_id, eos_id, vocab_size = 256, 257, 300

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def is_special(self, token: int) -> bool:
        return token > 255

    def token_bytes(self, token: int) -> bytes:
        return bytes([token])


@lru_cache(maxsize=100_000)
def _random_row(value: int, vocab: int) -> NDArray[np.float32]:
    return (np.random.default_rng(value).standard_normal(vocab) * 2).astype(np.float32)


def _write(batch: StepBatch, cache_PGC: Tensor, tokens_N: Tensor) -> None:
    flat = cache_PGC.view(-1, 2)
    slots = batch.slots_N.long()
    flat[slots, 0] = tokens_N.float()
    flat[slots, 1] = batch.positions_N.float()


def _read(batch: StepBatch, cache_PGC: Tensor, n: int) -> NDArray[np.float32]:
    length = int(batch.positions_N[n]) + 1
    pages = batch.pages_SP[int(batch.sequence_N[n])].long()[: -(-length // PAGE_TOKENS)]
    assert (pages >= 0).all(), "a row has no page"
    seen: NDArray[np.float32] = cache_PGC[pages].flatten(0, 1)[:length].numpy()
    return seen


def _pack(hashes: list[int]) -> Tensor:
    mask = (1 << _CHUNK) - 1
    return torch.tensor(
        [[(h >> (_CHUNK * i)) & mask for i in range(3)] for h in hashes], dtype=torch.float32
    )


def _unpack(hidden_ND: Tensor) -> list[int]:
    return [sum(int(x) << (_CHUNK * i) for i, x in enumerate(row)) for row in hidden_ND.tolist()]
