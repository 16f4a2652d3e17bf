"""Reinforcement learning on verifiable rewards (GRPO, arXiv 2402.03300): one loop for all presets.

A step: ask questions, let the model answer each several times (rollout.py), judge the answers
(rewards.py), compare each with its group (objectives.py), learn (policy.py, streams.py). What is
drawn is a pure function of (seed, step), so a resumed run goes on exactly as it would have.

Legend: P prompts, G rollouts of a prompt.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ingle.engine.request import SamplingParams
from ingle.errors import ConfigError
from ingle.models import build_model, save_model
from ingle.models.causal_lm import CausalLM
from ingle.models.config import ModelConfig
from ingle.prompt.deepseek_r1 import DeepSeekR1
from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import Problem
from ingle.training.balance import update_router_biases
from ingle.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from ingle.training.data import PAD, Mixture
from ingle.training.loop import can_compile, write_tokenizer
from ingle.training.optim import OptimConfig, Optimizers, rate_factor
from ingle.training.origin import origin_of
from ingle.training.reinforcement.grpo_log import GrpoLog
from ingle.training.reinforcement.objectives import (
    Objective,
    advantages,
    informative,
    token_weights,
)
from ingle.training.reinforcement.policy import Lesson, Policy, pack_lessons
from ingle.training.reinforcement.reference import Reference
from ingle.training.reinforcement.rewards import Reward, RewardWeights, reward
from ingle.training.reinforcement.rollout import Completion, Reply, Sampler, read_reply
from ingle.training.report.page import write_report
from ingle.training.streams import Streams


@dataclass(frozen=True)
class GrpoRun:
    """Everything that decides a run; the same one gives the same weights on one machine.

    parent: the folder it starts from. mixture: which questions are asked. prompts, group: P and G
    of a step. limit: most tokens of a reply, longest: of a prompt. updates: optimiser steps a batch
    of rollouts is cut into. refills: how often prompts are drawn anew for groups that teach
    nothing, where the objective asks for it. reset: steps after which the reference becomes the
    model of the time, 0 for never. bias_speed: of the routers' biases, 0 leaves them frozen.
    micro_tokens: of a packed batch. keep: the best checkpoint, by the moving average of accuracy,
    is kept beside the last from this step on.
    """

    name: str
    model: ModelConfig
    parent: Path
    mixture: Mixture
    steps: int
    objective: Objective
    rewards: RewardWeights = field(default_factory=RewardWeights)
    prompts: int = 16
    group: int = 8
    limit: int = 256
    longest: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    updates: int = 1
    refills: int = 3
    reset: int = 0
    micro_tokens: int = 4096
    streams: int = 2
    seed: int = 0
    warmup: int = 5
    decay: float = 0.0
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(muon=False, adam_lr=2e-5))
    clip: float = 1.0
    bias_speed: float = 0.0
    keep: int = 20
    save_every: int = 20
    samples_every: int = 10

    def __post_init__(self) -> None:
        if self.group < 2:
            raise ConfigError("group must be at least 2: advantages compare rollouts of a prompt.")
        if self.reset % self.save_every:
            raise ConfigError(
                "reset must be a multiple of save_every: a reference is a checkpoint."
            )

    def learning_rate(self, step: int) -> float:
        """Factor on the peak rates at a step."""
        return rate_factor(step, self.steps, self.warmup, self.decay)

    def sampling(self) -> SamplingParams:
        return SamplingParams(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k)


@dataclass(frozen=True)
class Group:
    """One question with its rollouts, each with its reply, reward and advantage."""

    problem: Problem
    prompt: list[int]
    completions: list[Completion]
    replies: list[Reply]
    rewards: list[Reward]
    advantages: list[float]
    teaches: bool


class Clock:
    """Seconds of a step by phase."""

    def __init__(self) -> None:
        self.seconds = {"rollout": 0.0, "reward": 0.0, "update": 0.0}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started


def train_grpo(
    run: GrpoRun, folder: Path, compiled: bool = True, stop_after: int | None = None,
    processes: int | None = None,
) -> CausalLM:  # fmt: skip
    """Run, or go on with, reinforcement learning in `folder`; returns the trained model.

    Leaves what `loop.train` leaves, and `samples.jsonl`, and the best checkpoint in `best`. Raises
    IngleError for a verifier that fails; the last checkpoint is then whole.
    """
    model = build_model(run.model, run.seed).train()
    load_weights(run.parent, model)
    optimizers = Optimizers(model, run.optim)
    done = load_checkpoint(folder, model, optimizers)
    origin = origin_of(run, folder, done)
    write_tokenizer(run, folder)
    log = GrpoLog(folder, run, done)
    last = min(run.steps, stop_after or run.steps)
    algorithm = Policy(run.objective, run.temperature, run.model.vocab_size)
    count = processes or os.cpu_count() or 1
    compiled = compiled and can_compile()
    with Streams(model, algorithm, run.streams, folder, compiled, count) as streams:
        loop = _Loop(run, model, optimizers, streams, folder, done)
        for step in range(done, last):
            clock = Clock()
            groups = loop.collect(step, clock)
            losses, norms = loop.learn(step, groups, clock)
            balance = update_router_biases(model, run.bias_speed)
            log.write(step, groups, losses, norms, balance, clock.seconds)
            if (step + 1) % run.save_every == 0 or step + 1 == last:
                save_checkpoint(folder, model, optimizers, step + 1, origin)
                loop.reference.settle(step + 1)
                if step + 1 >= run.keep and log.is_best(step + 1):
                    save_model(model, folder / "best", torch.float32)
                    write_tokenizer(run, folder / "best")
                write_report(folder)
    return model.eval()


class _Loop:
    """The two halves of a step, and what they share."""

    def __init__(
        self, run: GrpoRun, model: CausalLM, optimizers: Optimizers, streams: Streams,
        folder: Path, done: int,
    ) -> None:  # fmt: skip
        self.run, self.model, self.optimizers, self.streams = run, model, optimizers, streams
        self.tokenizer = Tokenizer.load(folder)
        self.pad = self.tokenizer.special(PAD)
        width = run.prompts * run.group
        eos = (self.tokenizer.eos_id,)
        self.sampler = Sampler(model, width, run.limit, run.longest, eos)
        self.reference = Reference(run, folder, done)

    def collect(self, step: int, clock: Clock) -> list[Group]:
        """The groups of a step: P of them, and where the objective refills, those drawn for groups
        that taught nothing, until P do or `refills` is used up."""
        groups: list[Group] = []
        rounds = 1 + (self.run.refills if self.run.objective.refill else 0)
        for turn in range(rounds):
            missing = self.run.prompts - sum(group.teaches for group in groups)
            if not missing:
                break
            groups += self._ask(random.Random(f"{self.run.seed}:{step}:{turn}"), missing, clock)
        return groups

    def _ask(self, rng: random.Random, count: int, clock: Clock) -> list[Group]:
        run = self.run
        problems: list[Problem] = []
        prompts: list[list[int]] = []
        while len(problems) < count:
            problem = run.mixture.problem(rng)
            messages = [{"role": "user", "content": problem.question}]
            prompt = DeepSeekR1().encode(messages, self.tokenizer)
            if len(prompt) <= run.longest:
                problems.append(problem)
                prompts.append(prompt)
        seeds = [[rng.getrandbits(63) for _ in range(run.group)] for _ in prompts]
        with clock.phase("rollout"), self.streams.resting():
            found = self.sampler.sample(prompts, seeds, run.sampling())
        with clock.phase("reward"):
            return [self._judge(*one) for one in zip(problems, prompts, found, strict=True)]

    def _judge(self, problem: Problem, prompt: list[int], found: list[Completion]) -> Group:
        run = self.run
        replies = [read_reply(one.tokens, self.tokenizer) for one in found]
        rewards = [
            reward(run.rewards, problem, reply.reasoning, reply.answer if one.whole else None,
                   len(one.tokens), run.limit, run.objective.overlong)
            for one, reply in zip(found, replies, strict=True)
        ]  # fmt: skip
        totals_1G = torch.tensor([[r.total for r in rewards]], dtype=torch.float64)
        values = advantages(totals_1G, run.objective.scale)[0].tolist()
        teaches = bool(informative(totals_1G)[0])
        return Group(problem, prompt, found, replies, rewards, values, teaches)

    def learn(
        self, step: int, groups: Sequence[Group], clock: Clock
    ) -> tuple[list[list[float]], list[float]]:
        """Update on what the groups teach; returns the parts of each update's loss and the gradient
        norms, none where nothing was to be learned."""
        run = self.run
        some = [group for group in groups if group.teaches]
        if run.objective.refill:
            some = some[: run.prompts]
        rollouts = [
            (group, index) for group in some for index, one in enumerate(group.completions)
            if one.whole  # what was cut off did not choose its end
        ]  # fmt: skip
        losses: list[list[float]] = []
        norms: list[float] = []
        with clock.phase("update"):
            for update in range(run.updates):
                chosen = rollouts[update :: run.updates]
                if not chosen:
                    continue
                lessons = self.reference.compare(self._lessons(chosen), self.streams)
                jobs = pack_lessons(lessons, run.micro_tokens, run.streams, self.pad)
                losses.append(self.streams.gradient(jobs).parts)
                with self.streams.resting():
                    parameters = self.model.parameters()
                    norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, run.clip)))
                    self.optimizers.step(run.learning_rate(step))
        return losses, norms

    def _lessons(self, chosen: Sequence[tuple[Group, int]]) -> list[Lesson]:
        run = self.run
        lengths = [len(group.completions[i].tokens) for group, i in chosen]
        weights = token_weights(lengths, run.objective.average, run.limit)
        filtered = run.objective.keep_sampling and (run.top_p < 1.0 or run.top_k > 0)
        lessons = []
        for (group, i), weight in zip(chosen, weights, strict=True):
            one = group.completions[i]
            lessons.append(Lesson(
                group.prompt, one.tokens, one.logprobs, group.advantages[i], weight,
                kept=one.kept if filtered else None,
            ))  # fmt: skip
        return lessons
