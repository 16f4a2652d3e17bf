"""The gradient of one step, computed by the processes that torchrun started: to the loops the same
object as `training/streams.py: Streams`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ingle.errors import ConfigError
from ingle.kernels import cpu
from ingle.parallel.algorithm import Algorithm, StepLoss
from ingle.parallel.shard import Sharded
from ingle.prompt.tokenizer import Tokenizer


class ShardedStreams:
    """Process r of W computes streams r, r + W, ... of every step; sums are over all of them.

    Raises ConfigError where W does not divide the number of streams: some would idle every step.
    """

    def __init__(
        self, layout: Sharded, algorithm: Algorithm, streams: int, tokenizer_folder: Path
    ) -> None:
        if streams % layout.size:
            raise ConfigError(
                f"A step of {streams} streams cannot be divided among {layout.size} processes: "
                "choose a number of streams that they divide (--streams)."
            )
        self.layout, self.algorithm = layout, algorithm
        self.tokenizer = Tokenizer.load(tokenizer_folder)
        cpu.set_threads(torch.get_num_threads())  # torchrun's share of the machine

    def __enter__(self) -> ShardedStreams:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Nobody rests: every process has threads of its own."""
        yield

    def gradient(self, jobs: Sequence[Any], ahead: Sequence[Any] = ()) -> StepLoss:
        """Add the gradient of a step, a job for each stream, to the parts that the optimisers
        update, and the whole step's expert loads to the model's counters of every process."""
        batches = [
            batch
            for job in self.layout.mine(jobs)
            for batch in self.algorithm.batches(job, self.tokenizer)
        ]
        most = torch.tensor(len(batches))
        dist.all_reduce(most, dist.ReduceOp.MAX)
        spare = batches or self.algorithm.batches(jobs[0], self.tokenizer)
        counts = torch.stack([self.algorithm.counts(batch) for batch in spare]).sum(0)
        counts = counts if batches else torch.zeros_like(counts)
        dist.all_reduce(counts)
        earlier = [load.clone() for load in self.layout.loads]
        for load in self.layout.loads:
            load.zero_()
        parts = [self._pass(batch, counts) for batch in batches]
        own = [load.clone() for load in self.layout.loads]
        # All processes gather and give back a layer equally often: one with fewer batches than
        # others goes through one more for nothing.
        for _ in range(int(most) - len(batches)):
            parts.append(0.0 * self._pass(spare[0], counts, weight=0.0))
        for load, counted in zip(self.layout.loads, own, strict=True):
            load.copy_(counted)
        self.layout.take_gradients()
        total = torch.stack(parts).sum(0)
        dist.all_reduce(total)
        for load, before in zip(self.layout.loads, earlier, strict=True):
            dist.all_reduce(load)
            load += before
        return StepLoss(total.tolist(), counts.tolist())

    def _pass(self, batch: Any, counts: Tensor, weight: float = 1.0) -> Tensor:
        """Forward and backward; returns the loss's parts."""
        loss, parts = self.layout.learner(self.algorithm.loss, batch, counts)
        (weight * loss).backward()
        return parts
