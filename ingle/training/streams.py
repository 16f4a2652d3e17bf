"""The gradient of one step, a process for each packed stream of its batch.

On a CPU, two processes of one thread train a small model about 1.3 times as fast as one process of
two threads (docs/log.md): its products are too small to share. Weights lie in shared memory, so
nothing is sent but a few numbers, and as numbers: for a tensor torch would open a socket, which the
seal refuses. Every helper leaves its gradient in shared memory and the parent adds them in the
order of the streams. Losses are normalised by the counts of the *whole* step, so the gradient does
not depend on how a batch is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.multiprocessing as mp
from torch import Tensor

from ingle.kernels import cpu
from ingle.models.causal_lm import CausalLM
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.balance import expert_loads, router_biases
from ingle.training.data import PackedBatch, batch_at
from ingle.training.loss import count_targets, training_loss

if TYPE_CHECKING:
    from ingle.training.loop import Run


def use_threads(count: int) -> None:
    """Threads of torch's operations and of the native kernels in this process."""
    torch.set_num_threads(count)
    cpu.set_threads(count)


@dataclass(frozen=True)
class StepLoss:
    """Losses of a whole step and its trained tokens."""

    main: float
    mtp: float
    trained: int


class Streams:
    """Computes a step's gradient into `model`; a context manager that ends its helpers.

    processes: at most one a stream; with fewer, the parent computes the rest itself, one after the
    other, with the same result to the last bit when it has one thread.
    """

    def __init__(
        self, run: Run, model: CausalLM, tokenizer_folder: Path, compiled: bool, processes: int
    ) -> None:
        self.run, self.model = run, model
        self.tokenizer = Tokenizer.load(tokenizer_folder)
        self.compute = _Gradient(run, model, compiled)
        self.helpers: list[_Helper] = []
        self.threads = torch.get_num_threads()
        if min(processes, run.streams) > 1:
            use_threads(1)  # before anything is compiled: the count is compiled in
            model.share_memory()
            first = run.streams - min(processes, run.streams) + 1
            self.helpers = [
                _Helper(run, model, tokenizer_folder, compiled, stream)
                for stream in range(first, run.streams)
            ]

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

    def gradient(self, step: int) -> StepLoss:
        """Add the step's gradient to `model`, and its expert loads to the model's counters."""
        for helper in self.helpers:
            helper.pipe.send(step)
        mine = range(self.run.streams - len(self.helpers))
        batches = [stream_batch(self.run, self.tokenizer, step, stream) for stream in mine]
        counted = [self.compute.count(batch) for batch in batches]
        counted += [helper.receive() for helper in self.helpers]
        counts = torch.stack(counted).sum(0)
        for helper in self.helpers:
            helper.pipe.send(counts.tolist())
        losses = [self.compute(batch, counts) for batch in batches]
        for helper in self.helpers:
            losses.append(helper.receive())
            helper.add_to(self.model)
        main, mtp = torch.stack(losses).sum(0).tolist()
        return StepLoss(main, mtp, int(counts[0]))


def stream_batch(run: Run, tokenizer: Tokenizer, step: int, stream: int) -> PackedBatch:
    """One stream of a step: a pure function of seed, step and stream."""
    draw = step * run.streams + stream
    length = run.batch_tokens // run.streams
    return batch_at(run.mixture, tokenizer, run.seed, draw, length, run.longest)


class _Gradient:
    """Forward and backward of one stream."""

    def __init__(self, run: Run, model: CausalLM, compiled: bool) -> None:
        self.model, self.mtp_weight = model, run.mtp_weight
        self.mtp_tokens = round(run.mtp_share * run.batch_tokens / run.streams)
        self.loss: Callable = training_loss
        if compiled:
            self.loss = torch.compile(training_loss, dynamic=False)

    def count(self, batch: PackedBatch) -> Tensor:
        """Trained tokens of both losses, [2]."""
        return count_targets(batch, self.mtp_tokens)

    def __call__(self, batch: PackedBatch, counts: Tensor) -> Tensor:
        loss, main, mtp = self.loss(self.model, batch, self.mtp_weight, self.mtp_tokens, counts)
        loss.backward()
        return torch.stack([main, mtp])


class _Helper:
    """The parent's end of one helper process."""

    def __init__(
        self, run: Run, model: CausalLM, folder: Path, compiled: bool, stream: int
    ) -> None:
        size = sum(p.numel() for p in model.parameters())
        self.gradient = torch.zeros(size).share_memory_()
        self.loads = [torch.zeros_like(load).share_memory_() for load in expert_loads(model)]
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        weights = [p.detach() for p in model.parameters()]
        shared = _Shared(weights, router_biases(model), self.gradient, self.loads)
        self.process = context.Process(
            target=_help, args=(run, shared, folder, compiled, stream, theirs), daemon=True
        )
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
            part = part.view_as(parameter)
            if parameter.grad is None:
                parameter.grad = part.clone()
            else:
                parameter.grad += part
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
    run: Run, shared: _Shared, folder: Path, compiled: bool, stream: int, pipe: Connection
) -> None:
    """A helper's whole life: one stream of every step the parent asks for."""
    use_threads(1)
    model = CausalLM(run.model, "reference").train()
    for own, theirs in zip(
        [*model.parameters(), *router_biases(model)], shared.weights + shared.biases, strict=True
    ):
        own.data = theirs  # not a copy: the parent's updates are seen here
    tokenizer, compute = Tokenizer.load(folder), _Gradient(run, model, compiled)
    try:
        while True:
            batch = stream_batch(run, tokenizer, pipe.recv(), stream)
            pipe.send(compute.count(batch).tolist())
            losses = compute(batch, torch.tensor(pipe.recv()))
            parameters = list(model.parameters())
            grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
            torch.cat([g.flatten() for g in grads], out=shared.gradient)
            for parameter in parameters:
                parameter.grad = None
            for load, mine in zip(shared.loads, expert_loads(model), strict=True):
                load.copy_(mine)
                mine.zero_()
            pipe.send(losses.tolist())
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # the parent has ended
