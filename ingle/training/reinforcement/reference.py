"""The reference model that a KL divergence is taken from."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ingle.models import load_model
from ingle.models.causal_lm import CausalLM
from ingle.training.reinforcement.policy import Lesson, Policy, pack_lessons
from ingle.training.reinforcement.run import GrpoRun
from ingle.training.streams import Gradients

_FILES = ("config.json", "model.safetensors")


class Reference:
    """The parent of a run or, every `reset` steps, the model of the time (R1-Zero: every 400).

    A run without KL has none, and pays nothing.
    """

    def __init__(self, run: GrpoRun, folder: Path, done: int) -> None:
        self.run, self.folder = run, folder
        self.own = folder / "reference"
        self.model: CausalLM | None = None
        if run.objective.kl:
            self._load()
            self.settle(done)  # in case the run was killed between a checkpoint and this

    def _load(self) -> None:
        folder = self.own if (self.own / _FILES[-1]).is_file() else self.run.parent
        self.model = load_model(folder, torch.float32, kernels="reference")

    def settle(self, step: int) -> None:
        """After the checkpoint of a step: become it, if it is time."""
        run = self.run
        if not (run.objective.kl and run.reset and step and step % run.reset == 0):
            return
        self.own.mkdir(exist_ok=True)
        for name in _FILES:
            partial = self.own / (name + ".partial")
            shutil.copyfile(self.folder / name, partial)
            partial.replace(self.own / name)
        self._load()

    def compare(self, lessons: list[Lesson], streams: Gradients) -> list[Lesson]:
        """The lessons with their log-probabilities under the reference."""
        if self.model is None:
            return lessons
        with streams.resting():
            return self._scored(lessons)

    @torch.no_grad()
    def _scored(self, lessons: Sequence[Lesson]) -> list[Lesson]:
        assert self.model is not None
        run, found = self.run, []
        policy = Policy(run.objective, run.temperature, run.model.vocab_size)
        for lesson in lessons:
            (arrays,) = pack_lessons([lesson], 1, 1, 0)[0]
            logprobs_TV = policy.logits(self.model, policy.batches([arrays])[0])
            logprobs_TV = logprobs_TV.log_softmax(-1)
            rows = slice(len(lesson.prompt) - 1, len(lesson.prompt) + len(lesson.tokens) - 1)
            ids = torch.tensor(lesson.tokens)[:, None]
            found.append(
                replace(lesson, reference=logprobs_TV[rows].gather(-1, ids)[:, 0].tolist())
            )
        return found
