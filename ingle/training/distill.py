"""Distillation: a student learns from a teacher's probabilities instead of, or beside, its words.

Three ways, which differ in whose text is read and in what is compared on it:

    traces      the teacher's text where the verifier agrees; then plain fine-tuning (R1's way)
    forward     given text; KL(teacher, student), over the teacher's likeliest tokens
    on-policy   the student's own text; KL(student, teacher) over the vocabulary (V4's way)

`traces` makes data (traces.py); this file holds the other two. Teacher and student share a
tokenizer.

Legend: T tokens of a packed stream, V vocabulary, K likeliest tokens.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ingle.engine.request import SamplingParams
from ingle.errors import ConfigError
from ingle.models import load_model
from ingle.models.causal_lm import CausalLM
from ingle.models.config import ModelConfig
from ingle.parallel.layout import Layout, Precision
from ingle.prompt.deepseek_r1 import DeepSeekR1
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.balance import Balance, update_router_biases
from ingle.training.data import PAD, Mixture, PackedBatch, batch_at
from ingle.training.metrics import MetricsLog
from ingle.training.opening import open_run
from ingle.training.optim import OptimConfig, rate_factor
from ingle.training.reinforcement.policy import Lesson, any_length, pack_lessons
from ingle.training.reinforcement.rollout import Sampler
from ingle.training.report.page import write_report
from ingle.training.streams import StepLoss

Way = Literal["forward", "on-policy"]


@dataclass(frozen=True)
class TaughtBatch:
    """A packed batch with the teacher's log-probabilities [T, V]; they count where trained_T is."""

    tokens_T: Tensor
    starts_T: Tensor
    trained_T: Tensor
    teacher_TV: Tensor


def forward_divergence(teacher_TV: Tensor, student_TV: Tensor, top_k: int) -> Tensor:
    """`sum_v p_teacher (log p_teacher - log p_student)` at each token, [T], of log-probabilities.

    top_k: only over the teacher's K likeliest, both renormalised over them; 0 for all.
    """
    if top_k:
        teacher_TV, ids_TK = teacher_TV.topk(top_k, -1)
        student_TV = student_TV.gather(-1, ids_TK).log_softmax(-1)
        teacher_TV = teacher_TV.log_softmax(-1)
    return (teacher_TV.exp() * (teacher_TV - student_TV)).sum(-1)


def reverse_divergence(teacher_TV: Tensor, student_TV: Tensor) -> Tensor:
    """`sum_v p_student (log p_student - log p_teacher)` at each token, [T]: it asks the student to
    leave what the teacher would not write."""
    return (student_TV.exp() * (student_TV - teacher_TV)).sum(-1)


@dataclass(frozen=True)
class Distillation:
    """`Algorithm` of both ways. A job is (step, stream) for given text, packed arrays for text of
    the student's own. The loss is the mean divergence over the trained tokens of the step."""

    way: Way
    teacher: Path
    mixture: Mixture
    seed: int
    streams: int
    length: int
    longest: int
    top_k: int

    @cached_property
    def model(self) -> CausalLM:
        """The teacher, in each process its own."""
        return load_model(self.teacher, torch.float32, kernels="reference")

    def batches(self, job: Any, tokenizer: Tokenizer) -> list[TaughtBatch]:
        if self.way == "on-policy":
            return [
                self._taught(*(torch.from_numpy(arrays[f"{name}_T"]) for name in _ARRAYS))
                for arrays in job
            ]
        step, stream = job
        draw = step * self.streams + stream
        batch: PackedBatch = batch_at(
            self.mixture, tokenizer, self.seed, draw, self.length, self.longest
        )
        return [self._taught(batch.tokens_T, batch.starts_T, batch.targets_T)]

    def counts(self, batch: TaughtBatch) -> Tensor:
        """Trained tokens, [1]."""
        return batch.trained_T.sum()[None]

    def loss(self, model: CausalLM, batch: TaughtBatch, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The loss; the only part is the same number."""
        hidden_1TD = model.hidden(batch.tokens_T[None], batch.starts_T)
        student_TV = model.logits(hidden_1TD)[0].float().log_softmax(-1)
        if self.way == "forward":
            divergence_T = forward_divergence(batch.teacher_TV, student_TV, self.top_k)
        else:
            divergence_T = reverse_divergence(batch.teacher_TV, student_TV)
        loss = torch.where(batch.trained_T, divergence_T, 0.0).sum() / counts[0].clamp(min=1)
        return loss, loss.detach()[None]

    @torch.no_grad()
    def _taught(self, tokens_T: Tensor, starts_T: Tensor, targets_T: Tensor) -> TaughtBatch:
        teacher_TV = self.model(tokens_T[None], starts_T)[0].float().log_softmax(-1)
        tensors = tokens_T, starts_T, targets_T != -100, teacher_TV
        return TaughtBatch(*map(any_length, tensors))  # rollouts are packed without padding


_ARRAYS = ("tokens", "starts", "targets")


@dataclass(frozen=True)
class DistillRun:
    """Everything that decides a run.

    model: the student's shape; parent: where it starts from. teacher: a folder with the same
    tokenizer. prompts, group, limit: of a step's rollouts, on-policy. precision: of the student's
    products in training (parallel/choice.py: lay_out).
    """

    name: str
    way: Way
    model: ModelConfig
    parent: Path
    teacher: Path
    mixture: Mixture
    steps: int
    top_k: int = 0
    batch_tokens: int = 8192
    streams: int = 2
    longest: int = 512
    prompts: int = 16
    group: int = 4
    limit: int = 256
    seed: int = 0
    warmup: int = 10
    decay: float = 0.9
    optim: OptimConfig = field(default_factory=OptimConfig)
    clip: float = 1.0
    bias_speed: float = 0.0
    save_every: int = 50
    precision: Precision = "fp32"

    def learning_rate(self, step: int) -> float:
        """Factor on the peak rates at a step."""
        return rate_factor(step, self.steps, self.warmup, self.decay)


def train_distill(
    run: DistillRun, folder: Path, compiled: bool = True, stop_after: int | None = None,
    processes: int | None = None, expert_parallel: int = 1,
) -> CausalLM:  # fmt: skip
    """Run, or go on with, a distillation in `folder`; returns the student.

    Raises ConfigError where teacher and student do not read the same tokens. Started by torchrun,
    the processes divide the student among them as in `loop.train`; each has a teacher of its own.
    """
    check_tokenizers(run.teacher, run.parent)
    opened = open_run(run, folder, expert_parallel, stop_after=stop_after)
    layout, last = opened.layout, opened.last
    log = MetricsLog(folder, run, opened.done) if layout.leads else None
    algorithm = Distillation(
        run.way, run.teacher, run.mixture, run.seed, run.streams,
        run.batch_tokens // run.streams, run.longest, run.top_k,
    )  # fmt: skip
    with opened.streams(algorithm, compiled, processes) as streams:
        student = _Student(run, layout, folder) if run.way == "on-policy" else None
        for step in range(opened.done, last):
            started = time.perf_counter()
            jobs: Sequence[Any] = [(step, stream) for stream in range(run.streams)]
            if student is not None:
                with streams.resting():
                    jobs = student.write(step)
            loss = streams.gradient(jobs)
            with streams.resting():
                norm = layout.clip(run.clip)
                opened.optimizers.step(run.learning_rate(step))
            balance = update_router_biases(opened.model, run.bias_speed)
            if log is not None:
                _report(log, run, step, loss, norm, balance, started)
            if (step + 1) % run.save_every == 0 or step + 1 == last:
                opened.save(step + 1)
                if layout.leads:
                    write_report(folder)
    return layout.assembled().eval()


def _report(
    log: MetricsLog, run: DistillRun, step: int, loss: StepLoss, norm: float, balance: Balance,
    started: float,
) -> None:  # fmt: skip
    seconds = time.perf_counter() - started
    log.write({
        "step": step, "divergence": round(loss.parts[0], 6), "grad_norm": norm,
        "lr": run.learning_rate(step), "max_violation": balance.max_violation,
        "dead_experts": balance.dead_experts, "trained_tokens": int(loss.counts[0]),
        "seconds": round(seconds, 3),
    })  # fmt: skip
    log.show(
        step,
        f"{run.name} {step + 1}/{run.steps}  divergence "
        f"{log.average(loss.parts[0]):.4f}  {loss.counts[0] / seconds:,.0f} tokens/s  "
        f"{log.left(seconds, run.steps - step - 1)}",
        every=20,
    )


def check_tokenizers(teacher: Path, student: Path) -> None:
    """A probability is one of the same token on both sides, or means nothing."""
    first, second = (Tokenizer.load(folder) for folder in (teacher, student))
    if [first.token_bytes(i) for i in range(first.vocab_size)] != [
        second.token_bytes(i) for i in range(second.vocab_size)
    ]:
        raise ConfigError(
            "Teacher and student have different tokenizers, so their probabilities cannot be "
            "compared. Distil by traces, which are text."
        )


class _Student:
    """Writes the text of a step, on-policy."""

    def __init__(self, run: DistillRun, layout: Layout, folder: Path) -> None:
        self.run, self.layout, self.tokenizer = run, layout, Tokenizer.load(folder)
        eos = (self.tokenizer.eos_id,)
        width = run.prompts * run.group
        self.sampler = Sampler(layout.assembled(), width, run.limit, run.longest, eos)

    def write(self, step: int) -> list[Any]:
        """Packed rollouts for each stream; a pure function of seed and step. Of many processes each
        writes its share."""
        run, rng = self.run, random.Random(f"{self.run.seed}:{step}")
        prompts: list[list[int]] = []
        while len(prompts) < run.prompts:
            messages = [{"role": "user", "content": run.mixture.problem(rng).question}]
            prompt = DeepSeekR1().encode(messages, self.tokenizer)
            if len(prompt) <= run.longest:
                prompts.append(prompt)
        seeds = [[rng.getrandbits(63) for _ in range(run.group)] for _ in prompts]
        self.layout.assembled()  # refreshes the model that the sampler has
        prompts = self.layout.mine(prompts)
        found_P_G = self.sampler.sample(prompts, self.layout.mine(seeds), SamplingParams())
        groups = [
            [Lesson(prompt, one.tokens, one.logprobs, 0.0, 0.0) for one in group]
            for prompt, group in zip(prompts, found_P_G, strict=True)
        ]
        lessons = [lesson for group in self.layout.exchange(groups) for lesson in group]
        length = run.batch_tokens // run.streams
        return pack_lessons(lessons, length, run.streams, self.tokenizer.special(PAD))
