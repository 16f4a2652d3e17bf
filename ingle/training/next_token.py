"""Predicting the next token, and with the MTP module the one after: pre-training, fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ingle.models.causal_lm import CausalLM
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.data import Documents, PackedBatch, batch_at
from ingle.training.loss import count_targets, training_loss


@dataclass(frozen=True)
class NextToken:
    """`Algorithm` of runs whose documents are known beforehand. A job is (step, stream).

    length: tokens of a stream, of which the first mtp_tokens carry the MTP loss. longest: a
    document of more tokens is skipped.
    """

    documents: Documents
    seed: int
    streams: int
    length: int
    longest: int
    mtp_weight: float
    mtp_tokens: int

    def batches(self, job: tuple[int, int], tokenizer: Tokenizer) -> list[PackedBatch]:
        """One stream of a step: a pure function of seed, step and stream."""
        step, stream = job
        draw = step * self.streams + stream
        return [batch_at(self.documents, tokenizer, self.seed, draw, self.length, self.longest)]

    def counts(self, batch: PackedBatch) -> Tensor:
        """Trained tokens of both losses, [2]."""
        return count_targets(batch, self.mtp_tokens)

    def loss(self, model: CausalLM, batch: PackedBatch, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The loss; parts are the main and the MTP loss."""
        loss, main, mtp = training_loss(model, batch, self.mtp_weight, self.mtp_tokens, counts)
        return loss, torch.stack([main, mtp])
