"""Reinforcement learning on verifiable rewards (GRPO, arXiv 2402.03300): one loop for all presets.

A step: ask questions, let the model answer each several times (rollout.py), judge the answers
(rewards.py), compare each with its group (objectives.py), learn (policy.py, streams.py). What is
drawn is a pure function of (seed, step), so a resumed run goes on exactly as it would have.

Legend: P prompts, G rollouts of a prompt.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from ingle.models import save_model
from ingle.models.causal_lm import CausalLM
from ingle.prompt.deepseek_r1 import DeepSeekR1
from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import Problem
from ingle.training.balance import update_router_biases
from ingle.training.data import PAD, raw_prompt
from ingle.training.opening import open_run, write_tokenizer
from ingle.training.optim import Optimizers
from ingle.training.reinforcement.grpo_log import GrpoLog
from ingle.training.reinforcement.objectives import (
    advantages,
    informative,
    token_weights,
)
from ingle.training.reinforcement.policy import Lesson, pack_lessons
from ingle.training.reinforcement.reference import Reference
from ingle.training.reinforcement.rewards import reward
from ingle.training.reinforcement.rollout import Completion, Sampler, read_reply
from ingle.training.reinforcement.routing import routing_disagreement
from ingle.training.reinforcement.run import Group, GrpoRun
from ingle.training.report.page import write_report
from ingle.training.streams import Gradients


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
    processes: int | None = None, expert_parallel: int = 1,
) -> CausalLM:  # fmt: skip
    """Run, or go on with, reinforcement learning in `folder`; returns the trained model.

    Leaves what `loop.train` leaves, and `samples.jsonl`, and the best checkpoint in `best`. Raises
    IngleError for a verifier that fails; the last checkpoint is then whole. Started by torchrun,
    each process asks its share of the questions, with a whole copy of the weights for its engine,
    and all learn from all answers; expert_parallel: how many share experts while they do.
    """
    opened = open_run(run, folder, expert_parallel, stop_after=stop_after)
    layout, last = opened.layout, opened.last
    log = GrpoLog(folder, run, opened.done) if layout.leads else None
    with opened.streams(run.algorithm(), compiled, processes) as streams:
        loop = _Loop(run, opened.optimizers, streams, folder, opened.done)
        for step in range(opened.done, last):
            clock = Clock()
            groups = loop.collect(step, clock)
            losses, norms = loop.learn(step, groups, clock)
            balance = update_router_biases(opened.model, run.bias_speed)
            found = loop.disagreement
            if log is not None:
                log.write(step, groups, losses, norms, balance, clock.seconds, found)
            if (step + 1) % run.save_every == 0 or step + 1 == last:
                opened.save(step + 1)
                for _ in layout.in_turn():
                    loop.reference.settle(step + 1)
                if log is None:
                    continue
                if step + 1 >= run.keep and log.is_best(step + 1):
                    save_model(loop.model, folder / "best", torch.float32)
                    write_tokenizer(run, folder / "best")
                write_report(folder)
    return layout.assembled().eval()


class _Loop:
    """The two halves of a step, and what they share."""

    def __init__(
        self, run: GrpoRun, optimizers: Optimizers, streams: Gradients, folder: Path, done: int
    ) -> None:
        self.run, self.optimizers, self.streams = run, optimizers, streams
        self.layout = optimizers.layout
        self.model = self.layout.assembled()  # of many processes: each its copy, for rollouts
        self.tokenizer = Tokenizer.load(folder)
        self.pad = self.tokenizer.special(PAD)
        width = run.prompts * run.group
        eos = (self.tokenizer.eos_id,)
        self.sampler = Sampler(
            self.model, width, run.limit, run.longest, eos, run.quant or None,
            run.routes is not None,
        )  # fmt: skip
        for _ in self.layout.in_turn():
            self.reference = Reference(run, folder, done)
        self.disagreement: float | None = None

    def collect(self, step: int, clock: Clock) -> list[Group]:
        """The groups of a step: P of them, and where the objective refills, those drawn for groups
        that taught nothing, until P do or `refills` is used up."""
        groups: list[Group] = []
        self.layout.assembled()  # refreshes `model`
        rounds = 1 + (self.run.refills if self.run.objective.refill else 0)
        for turn in range(rounds):
            missing = self.run.prompts - sum(group.teaches for group in groups)
            if not missing:
                break
            groups += self._ask(random.Random(f"{self.run.seed}:{step}:{turn}"), missing, clock)
        return groups

    def _ask(self, rng: random.Random, count: int, clock: Clock) -> list[Group]:
        run = self.run
        asked: list[tuple[Problem, list[int]]] = []
        while len(asked) < count:
            problem = run.mixture.problem(rng)
            prompt = self._prompt(problem.question)
            if len(prompt) <= run.longest:
                asked.append((problem, prompt))
        seeds = [[rng.getrandbits(63) for _ in range(run.group)] for _ in asked]
        asked, seeds = self.layout.mine(asked), self.layout.mine(seeds)
        with clock.phase("rollout"), self.streams.resting():
            found = self.sampler.sample([prompt for _, prompt in asked], seeds, run.sampling())
        with clock.phase("reward"):
            groups = [self._judge(*one, some) for one, some in zip(asked, found, strict=True)]
            return self.layout.exchange(groups)

    def _prompt(self, question: str) -> list[int]:
        if self.run.raw:
            return raw_prompt(question, self.tokenizer)
        return DeepSeekR1().encode([{"role": "user", "content": question}], self.tokenizer)

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
        self.disagreement = None
        with clock.phase("update"):
            for update in range(run.updates):
                chosen = rollouts[update :: run.updates]
                if not chosen:
                    continue
                lessons = self._lessons(chosen)
                if run.objective.kl:
                    mine = self.reference.compare(self.layout.mine(lessons), self.streams)
                    lessons = self.layout.exchange(mine)
                if run.routes and not losses:  # the weights are still those that sampled
                    self.disagreement = routing_disagreement(self.model, run.algorithm(), lessons)
                jobs = pack_lessons(lessons, run.micro_tokens, run.streams, self.pad)
                losses.append(self.streams.gradient(jobs).parts)
                with self.streams.resting():
                    norms.append(self.layout.clip(run.clip))
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
                kept=one.kept if filtered else None, routes=one.routes,
            ))  # fmt: skip
        return lessons
