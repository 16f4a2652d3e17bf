"""Losses, each normalised once by its own count of trained tokens.

Legend: B rows, T tokens, D model width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ingle.models.deepseek_v3 import DeepseekV3ForCausalLM
from ingle.training.data import PackedBatch


def mean_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over targets other than -100; zero when there are none."""
    total = F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), reduction="sum")
    return total / (targets != -100).sum().clamp(min=1)


def shift_targets(tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor) -> tuple[
    Tensor, Tensor
]:  # fmt: skip
    """For MTP: the token after each, and the target one further, inside one document only."""
    next_BT = F.pad(tokens_BT[:, 1:], (0, 1))
    after_BT = F.pad(targets_BT[:, 1:], (0, 1), value=-100)
    same = F.pad(documents_BT[:, 1:], (0, 1), value=-1) == documents_BT
    return torch.where(same, next_BT, 0), torch.where(same, after_BT, -100)


def training_loss(
    model: DeepseekV3ForCausalLM, batch: PackedBatch, mtp_weight: float, mtp_rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`L_main + mtp_weight * L_mtp` (arXiv 2412.19437, section 2.2), then both parts.

    The MTP term is estimated on the first `mtp_rows` rows: packing fills rows with independent
    documents, so any rows are a fair sample, and a share of them costs that share of its time.
    """
    hidden_BTD = model.hidden(batch.tokens_BT, batch.documents_BT)
    main = mean_cross_entropy(model.logits(hidden_BTD), batch.targets_BT)
    if not mtp_rows:
        return main, main.detach(), torch.zeros(())
    some = slice(0, mtp_rows)
    documents = batch.documents_BT[some]
    next_BT, after_BT = shift_targets(batch.tokens_BT[some], batch.targets_BT[some], documents)
    mtp_hidden = model.mtp_hidden(hidden_BTD[some], next_BT, documents)
    mtp = mean_cross_entropy(model.mtp_logits(mtp_hidden), after_BT)
    return main + mtp_weight * mtp, main.detach(), mtp.detach()
