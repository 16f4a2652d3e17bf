"""Which part of a model's tensors a process holds. The loops, optimisers and checkpoints ask this
object and so are the same for one process and for many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor

from ingle.models.causal_lm import CausalLM

T = TypeVar("T")
Precision = Literal["fp32", "bf16"]
Device = Literal["cpu", "cuda"]


class Layout:
    """One process, which holds everything whole. `Sharded` (shard.py) is the one for many.

    Tensors go by the name of their parameter. What is said to be collective has to be called by all
    processes of the run, in the same order.
    """

    rank = 0
    size = 1

    def __init__(self, model: CausalLM) -> None:
        self.model = model

    @property
    def leads(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    def parameters(self) -> dict[str, Tensor]:
        """What this process updates of each parameter; its gradient is in `grad`."""
        return dict(self.model.named_parameters())

    def state(self) -> dict[str, Tensor]:
        """What this process holds of everything a checkpoint of the model has."""
        return self.model.state_dict()

    def part(self, name: str, whole: Tensor) -> Tensor:
        """This process's part of a whole tensor."""
        return whole

    def whole(self, name: str, part: Tensor) -> Tensor:
        """The tensor that all processes' parts make up; collective."""
        return part

    def matrices(self, name: str, part: Tensor) -> Tensor:
        """Whole matrices that `part` is of; collective. Of a stack only those that are here."""
        return part

    def part_of_matrices(self, name: str, matrices: Tensor) -> Tensor:
        """The way back: this process's part of what `matrices` gave."""
        return matrices

    def clip(self, limit: float) -> float:
        """Scale the gradient down to the norm `limit`; returns its norm before. Collective."""
        return float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))

    def assembled(self, everywhere: bool = True) -> CausalLM:
        """The model with whole tensors as of now; collective. The same object at every call.

        everywhere: for all processes; else only the one that leads may use what is returned.
        """
        return self.model

    def mine(self, all_of_them: Sequence[T]) -> list[T]:
        """This process's share of what the processes divide among them."""
        return list(all_of_them[self.rank :: self.size])

    def exchange(self, mine: list[T]) -> list[T]:
        """All shares in the order that `mine` was taken from; collective, of plain values."""
        return mine

    def in_turn(self) -> Iterator[int]:
        """A loop of one pass that the processes go through one after the other; collective."""
        for rank in range(self.size):
            if rank == self.rank:
                yield rank
            self.wait()

    def wait(self) -> None:
        """Until all processes are here; collective."""
