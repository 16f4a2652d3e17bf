"""Losses, each normalised once by its own count of trained tokens.

Legend: T tokens of the packed stream, D model width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ingle.models.causal_lm import CausalLM
from ingle.models.layers.crossentropy import cross_entropy
from ingle.models.layers.linear import Linear, plain
from ingle.models.layers.norm import RMSNorm
from ingle.training.data import PackedBatch


def mean_cross_entropy(
    hidden_TD: Tensor, head: tuple[RMSNorm, Linear], targets_T: Tensor, count: Tensor
) -> Tensor:
    """Summed cross-entropy over targets other than -100, divided by `count`. hidden: before the
    norm."""
    norm, matrix = head
    x_TD = norm(hidden_TD)
    if plain(x_TD, matrix):
        total = cross_entropy(x_TD, matrix, targets_T)
    else:
        total = F.cross_entropy(matrix(x_TD).float(), targets_T, reduction="sum")
    return total / count.clamp(min=1)


def count_targets(batch: PackedBatch, mtp_tokens: int) -> Tensor:
    """Trained tokens of the main and of the MTP loss, [2]: add those of all streams of a step."""
    some = slice(0, mtp_tokens)
    _, after_T = shift_targets(batch.tokens_T[some], batch.targets_T[some], batch.starts_T[some])
    return torch.stack([(targets != -100).sum() for targets in (batch.targets_T, after_T)])


def shift_targets(tokens_T: Tensor, targets_T: Tensor, starts_T: Tensor) -> tuple[Tensor, Tensor]:
    """For MTP: the token after each, and the target one further, inside one document only."""
    next_T = F.pad(tokens_T[1:], (0, 1))
    after_T = F.pad(targets_T[1:], (0, 1), value=-100)
    same_T = F.pad(starts_T[1:], (0, 1), value=-1) == starts_T
    return torch.where(same_T, next_T, 0), torch.where(same_T, after_T, -100)


def training_loss(
    model: CausalLM, batch: PackedBatch, mtp_weight: float, mtp_tokens: int, counts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`L_main + mtp_weight * L_mtp` (arXiv 2412.19437, section 2.2), then both parts.

    counts: the trained tokens of both losses in the whole step, of which this stream is a share.

    The MTP term is estimated on the first `mtp_tokens` of the stream: documents are independent,
    so any of them are a fair sample, and a share of them costs that share of its time.
    """
    hidden_1TD = model.hidden(batch.tokens_T[None], batch.starts_T)
    main = mean_cross_entropy(hidden_1TD[0], model.head(), batch.targets_T, counts[0])
    if not mtp_tokens:
        return main, main.detach(), torch.zeros_like(main)
    some = slice(0, mtp_tokens)
    starts_T = batch.starts_T[some]
    next_T, after_T = shift_targets(batch.tokens_T[some], batch.targets_T[some], starts_T)
    mtp_hidden = model.mtp_hidden(hidden_1TD[:, some], next_T[None], starts_T)
    mtp = mean_cross_entropy(mtp_hidden[0], model.mtp_head(), after_T, counts[1])
    return main + mtp_weight * mtp, main.detach(), mtp.detach()
