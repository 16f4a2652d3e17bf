"""How every run begins, or goes on from its last checkpoint.

What pre-training, fine-tuning, reinforcement learning and distillation do before their first step
is the same and stands here once.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ingle.models import build_model
from ingle.models.causal_lm import CausalLM
from ingle.parallel.choice import lay_out
from ingle.parallel.layout import Device, Layout, Precision
from ingle.tasks import FIRST, TRAINED
from ingle.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from ingle.training.data import Mixture
from ingle.training.optim import OptimConfig, Optimizers
from ingle.training.origin import Origin, Traced, origin_of
from ingle.training.streams import Algorithm, Gradients, open_streams
from ingle.training.tokenizer import build_tokenizer


class Startable(Traced, Protocol):
    """A run of any kind, as far as it decides how it begins."""

    @property
    def seed(self) -> int: ...
    @property
    def optim(self) -> OptimConfig: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def streams(self) -> int: ...
    @property
    def steps(self) -> int: ...


@dataclass(frozen=True)
class Opened:
    """A run that can take its next step. done: steps that were finished before; last: where this
    call ends."""

    run: Startable
    folder: Path
    model: CausalLM
    layout: Layout
    optimizers: Optimizers
    origin: Origin
    done: int
    last: int

    def streams(self, algorithm: Algorithm, compiled: bool, processes: int | None) -> Gradients:
        """Who computes gradients; processes: None for one a core."""
        count = processes or os.cpu_count() or 1
        compiled = compiled and can_compile()
        if compiled and self.layout.leads and self.done < self.last:
            print("Compiling: the first step takes up to two minutes.", file=sys.stderr)
        return open_streams(self.layout, algorithm, self.run.streams, self.folder, compiled, count)

    def save(self, step: int) -> None:
        """The checkpoint after `step` steps; collective."""
        save_checkpoint(self.folder, self.model, self.optimizers, step, self.origin)


def open_run(
    run: Startable, folder: Path, expert_parallel: int = 1, kernels: str = "auto",
    stop_after: int | None = None, device: Device = "cpu",
) -> Opened:  # fmt: skip
    """Begin a run in `folder`, or take up the one that is there.

    Started by torchrun, the weights are divided among its processes; expert_parallel: how many of
    them share experts. stop_after: end at that step already. device: where a model that stays whole
    is trained.
    """
    model = build_model(run.model, run.seed, kernels).train()
    if run.parent is not None:
        load_weights(run.parent, model)
    layout = lay_out(model, run.precision, expert_parallel, device)
    optimizers = Optimizers(model, run.optim, layout)
    done = load_checkpoint(folder, model, optimizers)
    origin = origin_of(run, folder, done)
    if layout.leads:
        write_tokenizer(run, folder)
    layout.wait()
    last = min(run.steps, stop_after or run.steps)
    return Opened(run, folder, model, layout, optimizers, origin, done, last)


def write_tokenizer(run: Traced, folder: Path) -> None:
    """The parent's tokenizer, or a fresh one; its files become part of the run's folder.

    A fresh one knows the words of the first tasks, or those of all trained tasks where the run asks
    more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if run.parent is None:
        asked = run.mixture.weights if isinstance(run.mixture, Mixture) else {}
        tasks = TRAINED if set(asked).difference(FIRST) else FIRST
        build_tokenizer(folder, run.model.vocab_size, run.model.max_position_embeddings, tasks)
    else:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(run.parent / name, folder / name)


def can_compile() -> bool:
    """torch.compile needs a C++ compiler; without one the same loop runs eagerly."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # inductor raises its own types when it finds none
        print(f"No C++ compiler ({type(error).__name__}): training runs uncompiled, about a "
              "quarter slower.", file=sys.stderr)  # fmt: skip
        return False
    return True
