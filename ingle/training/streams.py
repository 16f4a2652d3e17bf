"""The gradient of one step, computed by a process for each of its streams.

On a CPU, two processes of one thread train a small model about 1.3 times as fast as one process of
two threads (docs/log.md): its products are too small to share. Weights lie in shared memory, so
nothing is sent but numbers and arrays: for a tensor torch would open a socket, which the seal
refuses. Every helper leaves its gradient in shared memory and the parent adds them in the order of
the streams. Losses are normalised over the *whole* step, so the gradient does not depend on how a
step is cut.

Nothing here knows what is learned: that is an `Algorithm` (next_token.py, policy.py, ...). The same
object for processes that torchrun started is in parallel/gradient.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import Tensor

from ingle.kernels import cpu
from ingle.models.causal_lm import CausalLM
from ingle.models.config import ModelConfig
from ingle.parallel.algorithm import Algorithm, Gradients, StepLoss
from ingle.parallel.gpu import GpuStreams, OnGpu
from ingle.parallel.layout import Layout
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.balance import expert_loads, router_biases
from ingle.training.memory import keep_memory

__all__ = ["Algorithm", "Gradients", "StepLoss", "Streams", "open_streams", "use_threads"]


def use_threads(count: int) -> None:
    """Threads of torch's operations and of the native kernels in this process."""
    torch.set_num_threads(count)
    cpu.set_threads(count)


def open_streams(
    layout: Layout, algorithm: Algorithm, streams: int, tokenizer_folder: Path, compiled: bool,
    processes: int,
) -> Gradients:  # fmt: skip
    """What computes a step's gradient: `Streams` for a whole model, `GpuStreams` for one on a GPU,
    else the processes that share it, eagerly and each with one process of its own."""
    if isinstance(layout, OnGpu):
        return GpuStreams(layout, algorithm, tokenizer_folder, compiled, processes)
    if type(layout) is Layout:
        return Streams(layout.model, algorithm, streams, tokenizer_folder, compiled, processes)
    from ingle.parallel.gradient import ShardedStreams  # with FSDP2, as in parallel/choice.py
    from ingle.parallel.shard import Sharded

    assert isinstance(layout, Sharded)
    keep_memory()
    return ShardedStreams(layout, algorithm, streams, tokenizer_folder)


class Streams:
    """Computes a step's gradient into `model`; a context manager that ends its helpers.

    streams: how many a step is cut into. processes: at most one a stream; with fewer, the parent
    computes the rest itself, one after the other, with the same result to the last bit when it has
    one thread.
    """

    def __init__(
        self, model: CausalLM, algorithm: Algorithm, streams: int, tokenizer_folder: Path,
        compiled: bool, processes: int,
    ) -> None:  # fmt: skip
        keep_memory()
        self.model = model
        self.threads = torch.get_num_threads()
        others = min(processes, streams) - 1
        if others > 0:
            use_threads(1)  # before anything is compiled: the count is compiled in
            model.share_memory()
        self.helpers = [
            _Helper(model, algorithm, tokenizer_folder, compiled) for _ in range(others)
        ]
        self.compute = _Gradient(model, algorithm, tokenizer_folder, compiled)

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, *_: object) -> None:
        for helper in self.helpers:
            helper.end()
        use_threads(self.threads)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """All threads for the parent, while helpers wait for the next step."""
        one = torch.get_num_threads()
        use_threads(self.threads)
        yield
        use_threads(one)

    def gradient(self, jobs: Sequence[Any], ahead: Sequence[Any] = ()) -> StepLoss:
        """Add the gradient of a step, a job for each stream, to `model`, and the step's expert
        loads to the model's counters. ahead: jobs of later steps, of which each process draws its
        next ones while it would only wait."""
        own = len(jobs) - len(self.helpers)
        mine, theirs, later = jobs[:own], jobs[own:], ahead[own : len(jobs)]
        for i, (helper, job) in enumerate(zip(self.helpers, theirs, strict=True)):
            helper.pipe.send((job, later[i : i + 1]))
        streams = [self.compute.batches(job) for job in mine]
        counted = [self.compute.count(batches) for batches in streams]
        counted += [helper.receive() for helper in self.helpers]
        counts = torch.stack(counted).sum(0)
        for helper in self.helpers:
            helper.pipe.send(counts.tolist())
        parts = []
        for batches in streams:
            parts.append(self._add(batches, counts))
        for job in ahead[:own]:
            if any(not helper.pipe.poll() for helper in self.helpers):
                self.compute.draw(job)
        for helper in self.helpers:
            parts.append(helper.receive())
            helper.add_to(self.model)
        return StepLoss(torch.stack(parts).sum(0).tolist(), counts.tolist())

    def _add(self, batches: list[Any], counts: Tensor) -> Tensor:
        """Add one stream's gradient as a helper's would be: first summed up, then added."""
        before = [p.grad for p in self.model.parameters()]
        for parameter in self.model.parameters():
            parameter.grad = None
        parts = self.compute(batches, counts)
        for parameter, earlier in zip(self.model.parameters(), before, strict=True):
            if earlier is not None:
                parameter.grad = earlier if parameter.grad is None else earlier + parameter.grad
        return parts


class _Gradient:
    """Forward and backward of one stream."""

    def __init__(
        self, model: CausalLM, algorithm: Algorithm, tokenizer_folder: Path, compiled: bool
    ) -> None:
        self.model, self.algorithm = model, algorithm
        self.tokenizer = Tokenizer.load(tokenizer_folder)
        self.drawn: list[tuple[Any, list[Any]]] = []  # ahead of their step, with their jobs
        self.loss: Callable = algorithm.loss
        if compiled:
            model.tables()  # code for a model without them would be compiled anew once it has them
            self.loss = torch.compile(algorithm.loss, dynamic=False)

    def batches(self, job: Any) -> list[Any]:
        if self.drawn and self.drawn[0][0] == job:
            return self.drawn.pop(0)[1]
        self.drawn.clear()  # of a step that never came
        return self.algorithm.batches(job, self.tokenizer)

    def draw(self, job: Any) -> None:
        """Have the batches of a later step ready."""
        self.drawn.append((job, self.algorithm.batches(job, self.tokenizer)))

    def count(self, batches: list[Any]) -> Tensor:
        return torch.stack([self.algorithm.counts(batch) for batch in batches]).sum(0)

    def __call__(self, batches: list[Any], counts: Tensor) -> Tensor:
        parts = []
        for batch in batches:
            loss, some = self.loss(self.model, batch, counts)
            loss.backward()
            parts.append(some)
        return torch.stack(parts).sum(0)


class _Helper:
    """The parent's end of one helper process."""

    def __init__(
        self, model: CausalLM, algorithm: Algorithm, tokenizer_folder: Path, compiled: bool
    ) -> None:
        size = sum(p.numel() for p in model.parameters())
        self.gradient = torch.zeros(size).share_memory_()
        self.loads = [torch.zeros_like(load).share_memory_() for load in expert_loads(model)]
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        weights = [p.detach() for p in model.parameters()]
        shared = _Shared(weights, router_biases(model), self.gradient, self.loads)
        self.process = context.Process(
            target=_help, daemon=True,
            args=(model.config, algorithm, shared, tokenizer_folder, compiled, theirs),
        )  # fmt: skip
        self.process.start()
        theirs.close()

    def receive(self) -> Tensor:
        try:
            received = torch.tensor(self.pipe.recv())
        except EOFError:
            self.process.join()
            raise RuntimeError(
                f"A training process ended with exit code {self.process.exitcode}; its error is "
                "above. The last checkpoint is whole: run the same command to go on from it."
            ) from None
        return received

    def add_to(self, model: CausalLM) -> None:
        parameters = list(model.parameters())
        parts = self.gradient.split([p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            if parameter.grad is not None:  # else the algorithm does not reach it
                parameter.grad += part.view_as(parameter)
        for total, load in zip(expert_loads(model), self.loads, strict=True):
            total += load

    def end(self) -> None:
        self.pipe.close()
        self.process.join(timeout=5)
        self.process.kill()


@dataclass(frozen=True)
class _Shared:
    """Tensors that parent and helper both see; only the helper writes its gradient and loads."""

    weights: list[Tensor]
    biases: list[Tensor]
    gradient: Tensor
    loads: list[Tensor]


def _help(
    config: ModelConfig, algorithm: Algorithm, shared: _Shared, folder: Path, compiled: bool,
    pipe: Connection,
) -> None:  # fmt: skip
    """A helper's whole life: one stream of every step the parent asks for."""
    keep_memory()
    use_threads(1)
    model = CausalLM(config, "reference").train()
    for own, theirs in zip(
        [*model.parameters(), *router_biases(model)], shared.weights + shared.biases, strict=True
    ):
        own.data = theirs  # not a copy: the parent's updates are seen here
    compute = _Gradient(model, algorithm, folder, compiled)
    try:
        while True:
            job, later = pipe.recv()
            batches = compute.batches(job)
            pipe.send(compute.count(batches).tolist())
            parts = compute(batches, torch.tensor(pipe.recv()))
            parameters = list(model.parameters())
            grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
            torch.cat([g.flatten() for g in grads], out=shared.gradient)
            for parameter in parameters:
                parameter.grad = None
            for load, mine in zip(shared.loads, expert_loads(model), strict=True):
                load.copy_(mine)
                mine.zero_()
            pipe.send(parts.tolist())
            for job in later:
                compute.draw(job)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # the parent has ended
