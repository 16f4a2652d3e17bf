"""Accuracy on fresh problems: generate, answer with the engine, verify.

Problems come from the test split, which training never draws from. Contamination is measured apart
from the split's own rule: the share of questions that, word for word, also occur among freshly
drawn training problems, as they would if two problems that are the same had different keys.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from dataclasses import dataclass, field

from ingle.engine.llm import LLM
from ingle.engine.request import SamplingParams
from ingle.tasks import TASKS, Problem, sample, verify

TRAINING_DRAWS = 2000  # per task and level


@dataclass
class Score:
    """Right answers among n problems."""

    right: int = 0
    n: int = 0
    distinct: set[str] = field(default_factory=set)

    @property
    def rate(self) -> float:
        return self.right / self.n if self.n else math.nan

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the rate."""
        z, n, p = 1.96, self.n, self.rate
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return middle - half, middle + half


@dataclass
class Evaluation:
    """Scores by task and by (task, level), and a few wrong answers to look at."""

    by_task: dict[str, Score]
    by_level: dict[tuple[str, int], Score]
    mistakes: list[tuple[Problem, str, str]]  # problem, thinking and answer, reason
    contamination: float  # share of questions also found among TRAINING_DRAWS training problems
    mean_tokens: float

    def levels(self, task: str) -> dict[int, float]:
        """Rate of each level of a task."""
        return {level: s.rate for (name, level), s in self.by_level.items() if name == task}

    @property
    def mean(self) -> float:
        """Mean rate over the verifiable tasks; the small-talk task is no skill and stays out."""
        rates = [score.rate for task, score in self.by_task.items() if task != "chat"]
        return sum(rates) / len(rates)


def fresh_problems(task: str, n: int, seed: int, levels: tuple[int, ...] | None = None) -> list[
    Problem
]:  # fmt: skip
    """n test-split problems of a task, its levels in turn."""
    rng = random.Random(f"eval:{seed}:{task}")
    levels = levels or TASKS[task].LEVELS
    return [sample(rng, task, levels[i % len(levels)], "test") for i in range(n)]


def evaluate(
    llm: LLM, tasks: list[str], n: int, seed: int, levels: tuple[int, ...] | None = None,
    max_tokens: int = 400,
) -> Evaluation:  # fmt: skip
    """Ask n fresh problems per task greedily; small talk has one level whatever `levels` says."""
    problems = [
        problem
        for task in tasks
        for problem in fresh_problems(task, n, seed, None if task == "chat" else levels)
    ]
    chats = [[{"role": "user", "content": p.question}] for p in problems]
    results = llm.chat(chats, SamplingParams(temperature=0.0, max_tokens=max_tokens))
    by_task: dict[str, Score] = defaultdict(Score)
    by_level: dict[tuple[str, int], Score] = defaultdict(Score)
    mistakes = []
    for problem, result in zip(problems, results, strict=True):
        verdict = verify(problem, result.text)
        for score in (by_task[problem.task], by_level[problem.task, problem.level]):
            score.n += 1
            score.right += verdict.score >= 1.0
            score.distinct.add(problem.key)
        if verdict.score < 1.0:
            mistakes.append((problem, f"{result.reasoning}\n-> {result.text}", verdict.reason))
    leaked = contamination(problems, seed)
    tokens = sum(len(r.token_ids) for r in results) / len(results)
    return Evaluation(dict(by_task), dict(by_level), mistakes, leaked, tokens)


def contamination(problems: list[Problem], seed: int) -> float:
    """Share of the questions that occur, up to case and spaces, among drawn training problems."""
    rng = random.Random(f"contamination:{seed}")
    asked = {(p.task, p.level) for p in problems}
    trained = {
        _bare(sample(rng, task, level, "train").question)
        for task, level in sorted(asked)
        for _ in range(TRAINING_DRAWS)
    }
    return sum(_bare(p.question) in trained for p in problems) / len(problems)


def _bare(question: str) -> str:
    return "".join(question.lower().split())
