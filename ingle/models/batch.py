"""What one engine step asks of a model: a flat, ragged batch of tokens over a paged cache.

Legend: N rows (tokens) of this step, S sequences, P pages of the longest sequence, M mixture
layers (MTP's not counted), K experts chosen for a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PAGE_TOKENS = 64  # latents per cache page; DeepSeek's own serving stack uses the same size


@dataclass(frozen=True)
class StepBatch:
    """Rows of any mix of prefill chunks, single decoded tokens and drafts to verify.

    Every row is one token of one sequence. Row n attends to the cached positions
    `0 .. positions_N[n]` of its sequence, which include rows of this same step: each layer writes
    all latents before it attends. A page table entry -1 is padding.
    """

    tokens_N: Tensor  # int64, token ids
    positions_N: Tensor  # int32, position of each token in its sequence
    slots_N: Tensor  # int32, page * PAGE_TOKENS + offset: where the row's latent is written
    sequence_N: Tensor  # int32, which row of pages_SP the token belongs to
    pages_SP: Tensor  # int32, page ids of each sequence in order, padded with -1
    chosen_MNK: Tensor | None = None  # uint8, for the step to fill: the experts of each row

    @staticmethod
    def build(rows: list[tuple[list[int], int, list[int]]]) -> StepBatch:
        """Make a batch from `(tokens, first position, page ids)` per sequence."""
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        sequence: list[int] = []
        width = max(len(pages) for _, _, pages in rows)
        table = []
        for index, (ids, start, pages) in enumerate(rows):
            tokens += ids
            span = range(start, start + len(ids))
            positions += span
            slots += [pages[p // PAGE_TOKENS] * PAGE_TOKENS + p % PAGE_TOKENS for p in span]
            sequence += [index] * len(ids)
            table.append(pages + [-1] * (width - len(pages)))
        i32 = torch.int32
        return StepBatch(
            torch.tensor(tokens, dtype=torch.int64),
            torch.tensor(positions, dtype=i32),
            torch.tensor(slots, dtype=i32),
            torch.tensor(sequence, dtype=i32),
            torch.tensor(table, dtype=i32),
        )
