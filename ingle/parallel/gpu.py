"""A whole model on one GPU, and who computes its gradient there.

Weights, their gradients' sums and their updates are fp32. With bf16 products the forward and
backward passes run on a second model that has the weights rounded, all but the routers', as the
processes of a sharded run do with each layer they gather (shard.py).
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ingle.errors import ConfigError
from ingle.models.causal_lm import CausalLM
from ingle.models.layers.moe import Router
from ingle.parallel.algorithm import Algorithm, StepLoss
from ingle.parallel.layout import Layout, Precision
from ingle.prompt.tokenizer import Tokenizer


def check_gpu() -> None:
    """ConfigError where there is no GPU, or no Triton to build its kernels with."""
    if not torch.cuda.is_available():
        raise ConfigError(
            "PyTorch finds no GPU: nvidia-smi says whether there is one, and `pip install torch` "
            "without a constraint to its CPU build brings the libraries for it. A run with "
            "device='cpu' needs neither."
        )
    try:
        from ingle.kernels import triton  # noqa: F401
    except ImportError:
        raise ConfigError("Training on a GPU needs Triton: pip install triton.") from None


class OnGpu(Layout):
    """One process, which holds everything whole, on a GPU. Checkpoints are made in main memory."""

    def __init__(self, model: CausalLM, precision: Precision, device: str = "cuda") -> None:
        super().__init__(model.to(device))
        self.precision, self.device = precision, torch.device(device)
        self._in_memory: CausalLM | None = None

    def part(self, name: str, whole: Tensor) -> Tensor:
        return whole.to(self.device)

    def whole(self, name: str, part: Tensor) -> Tensor:
        return part.cpu()

    @torch.no_grad()
    def assembled(self, everywhere: bool = True) -> CausalLM:
        if self._in_memory is None:
            self._in_memory = CausalLM(self.model.config, "reference")
        there = self.model.state_dict()
        for name, tensor in self._in_memory.state_dict().items():
            tensor.copy_(there[name])
        return self._in_memory


class GpuStreams:
    """Computes a step's gradient stream by stream on the GPU, while processes draw later batches.

    processes: how many draw.
    """

    def __init__(
        self, layout: OnGpu, algorithm: Algorithm, tokenizer_folder: Path, compiled: bool,
        processes: int,
    ) -> None:  # fmt: skip
        self.layout, self.algorithm, self.folder = layout, algorithm, tokenizer_folder
        self.passes = _rounded(layout.model) if layout.precision == "bf16" else layout.model
        self.passes.tables()  # code for a model without them would be compiled anew once it has
        self.loss: Callable = algorithm.loss
        if compiled:
            self.loss = torch.compile(algorithm.loss, dynamic=False)
        self.drawn: dict[Any, Future[bytes]] = {}
        self.pool = ProcessPoolExecutor(
            processes, multiprocessing.get_context("spawn"), initializer=_stand_back
        )

    def __enter__(self) -> GpuStreams:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """The GPU has no threads to lend."""
        yield

    def gradient(self, jobs: Sequence[Any], ahead: Sequence[Any] = ()) -> StepLoss:
        """Add the gradient of a step, a job for each stream, to the weights', and the step's expert
        loads to the model's counters. ahead: jobs of later steps, to be drawn meanwhile."""
        for job in (*jobs, *ahead):
            if job not in self.drawn:
                self.drawn[job] = self.pool.submit(_draw, self.algorithm, self.folder, job)
        batches = [batch for job in jobs for batch in pickle.loads(self.drawn.pop(job).result())]
        counts = torch.stack([self.algorithm.counts(batch) for batch in batches]).sum(0)
        self._round()
        parts = []
        for batch in batches:
            loss, some = self.loss(
                self.passes, _on(batch, self.layout.device), counts.to(self.layout.device)
            )
            loss.backward()
            parts.append(some)
            self._take_gradients()
        return StepLoss(torch.stack(parts).sum(0).tolist(), counts.tolist())

    @torch.no_grad()
    def _round(self) -> None:
        if self.passes is not self.layout.model:
            torch._foreach_copy_(
                list(self.passes.parameters()), list(self.layout.model.parameters())
            )

    def _take_gradients(self) -> None:
        """Add what a pass left at the rounded weights to the gradients of the weights."""
        if self.passes is self.layout.model:
            return
        for p, rounded in zip(
            self.layout.model.parameters(), self.passes.parameters(), strict=True
        ):
            if rounded.grad is not None:
                found = rounded.grad.to(p.dtype)
                p.grad = found if p.grad is None else p.grad + found
                rounded.grad = None


def _rounded(model: CausalLM) -> CausalLM:
    """A second model in bf16, but for routers, with the buffers of the first."""
    second = CausalLM(model.config, "reference").train()
    routers = {id(m.weight) for m in model.modules() if isinstance(m, Router)}
    for own, p in zip(second.parameters(), model.parameters(), strict=True):
        own.data = p.data.to(torch.float32 if id(p) in routers else torch.bfloat16, copy=True)
    for mine, theirs in zip(second.modules(), model.modules(), strict=True):
        mine._buffers = theirs._buffers  # biases and counters of the experts are the same tensors
    return second


def _on(batch: Any, device: torch.device) -> Any:
    """The batch with its tensors on a device."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{
        name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)
    })  # fmt: skip


def _stand_back() -> None:
    """A process that draws: the one that feeds the GPU comes first."""
    torch.set_num_threads(1)
    os.nice(5)


@cache  # read once by each of them
def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


def _draw(algorithm: Algorithm, folder: Path, job: Any) -> bytes:
    """A stream's batches in bytes: for a tensor torch would open a socket, which the seal
    refuses."""
    return pickle.dumps(algorithm.batches(job, _tokenizer(folder)))
