"""What a step computes, whoever computes it: helpers on one machine (training/streams.py) or the
processes that torchrun starts (parallel/gradient.py)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, Self

from torch import Tensor

from ingle.models.causal_lm import CausalLM
from ingle.prompt.tokenizer import Tokenizer


class Algorithm(Protocol):
    """What a step minimises. It is sent to every process, so it holds plain values only."""

    def batches(self, job: Any, tokenizer: Tokenizer) -> list[Any]:
        """The packed batches of one stream, from what the parent says of it (picklable)."""

    def counts(self, batch: Any) -> Tensor:
        """What the step's sums are divided by, [C]; added up over all its batches."""

    def loss(self, model: CausalLM, batch: Any, counts: Tensor) -> tuple[Tensor, Tensor]:
        """A batch's share of the step's loss, and of the numbers to log, [P] without gradient."""


@dataclass(frozen=True)
class StepLoss:
    """Of a whole step: the numbers its algorithm logs, and its counts."""

    parts: list[float]
    counts: list[float]


class Gradients(Protocol):
    """What computes a step's gradient, as a loop sees it; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def gradient(self, jobs: Sequence[Any], ahead: Sequence[Any] = ()) -> StepLoss:
        """Add the gradient of a step, a job for each stream, to what the optimisers update, and its
        expert loads to the model's counters. ahead: jobs of later steps, for those who can draw
        their batches meanwhile."""

    def resting(self) -> AbstractContextManager[None]:
        """All threads for whoever calls, while no gradient is computed."""
