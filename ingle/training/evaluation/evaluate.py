"""Accuracy on fresh problems: generate, have them answered, verify.

Problems come from the test split, which training never draws from. Contamination is measured apart
from the split's own rule: the share of questions that, word for word, also occur among freshly
drawn training problems, as they would if two problems that are the same had different keys.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from ingle.engine.progress import progress
from ingle.statistics import Estimate, mean_of_estimates
from ingle.tasks import ALL_TASKS, TRANSFER, Problem, Verdict, sample, verify
from ingle.training.evaluation.asking import Answer, Ask, Asking, ask_model, questions_of
from ingle.training.evaluation.open_sets import final_number
from ingle.training.evaluation.passes import (
    maj_at_k,
    mean_majority,
    mean_pass,
    numbers_of_tries,
)

if TYPE_CHECKING:
    from ingle.engine.llm import LLM

TRAINING_DRAWS = 2000  # per task and level
ASKED_AT_ONCE = 4096  # requests whose tokens are in memory together
NO_SKILL = ("chat", "small_talk")  # small talk


@dataclass(frozen=True)
class Outcome:
    """What came of one problem: of each sample, whether it was right and what it votes for."""

    problem: Problem
    right: tuple[bool, ...]
    votes: tuple[str | None, ...]


@dataclass
class Score:
    """The outcomes of a task or of one of its levels."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Problems."""
        return len(self.outcomes)

    @property
    def right(self) -> int:
        """Right samples of all problems."""
        return sum(sum(outcome.right) for outcome in self.outcomes)

    @property
    def samples(self) -> int:
        """Answers to each problem."""
        return len(self.outcomes[0].right) if self.outcomes else 0

    @property
    def distinct(self) -> set[str]:
        """Keys of the problems; easy levels repeat some."""
        return {outcome.problem.key for outcome in self.outcomes}

    @property
    def rate(self) -> float:
        """pass@1."""
        return self.passes(1).value if self.outcomes else math.nan

    def interval(self) -> tuple[float, float]:
        """95 % interval of the rate: Wilson's for one answer to each problem."""
        found = self.passes(1)
        return found.low, found.high

    def passes(self, k: int) -> Estimate:
        """pass@k; k is at most the number of samples."""
        return mean_pass([(len(o.right), sum(o.right)) for o in self.outcomes], k)

    def majority(self, k: int) -> Estimate:
        """maj@k."""
        outcomes = self.outcomes
        return mean_majority([o.votes for o in outcomes], [o.right for o in outcomes], k)

    def chance(self) -> float | None:
        """For problems of an open set: how often these numbers would be right as answers to each
        other's questions. What pass@1 has above it is skill; None for tasks with other answers."""
        gold = [o.problem.gold.get("number") for o in self.outcomes]
        if self.n < 2 or None in gold:
            return None
        golds = Counter(map(str, gold))
        hits = [
            golds[vote] - (vote == str(own))
            for outcome, own in zip(self.outcomes, gold, strict=True)
            for vote in outcome.votes
            if vote is not None
        ]
        return sum(hits) / (self.n * self.samples * (self.n - 1))

    def as_json(self) -> dict[str, Any]:
        """pass@k and maj@k with intervals; of each problem in order, its number of right samples
        and, of several, maj@k for the largest k."""
        tries = numbers_of_tries(self.samples)
        found = {
            "n": self.n, "samples": self.samples, "distinct": len(self.distinct),
            "rate": self.rate, "interval": list(self.interval()), "chance": self.chance(),
            "pass": {str(k): self.passes(k).as_json() for k in tries},
            "majority": {str(k): self.majority(k).as_json() for k in tries},
            "right": self.right, "right_of_each": [sum(o.right) for o in self.outcomes],
        }  # fmt: skip
        if self.samples > 1:
            most = tries[-1]
            found["majority_of_each"] = [maj_at_k(o.votes, o.right, most) for o in self.outcomes]
        return found


@dataclass
class Evaluation:
    """Scores by task and by (task, level), and a few wrong answers to look at.

    mistakes: problem, thinking and answer, reason. contamination: share of the questions also found
    among TRAINING_DRAWS training problems, None where no task of ours was asked. cut: share of
    answers that max_tokens or the context ended. too_long: share that was never asked because the
    question alone exceeds the context, which is wrong.
    """

    by_task: dict[str, Score]
    by_level: dict[tuple[str, int], Score]
    mistakes: list[tuple[Problem, str, str]]
    contamination: float | None
    mean_tokens: float
    cut: float = 0.0
    too_long: float = 0.0

    def levels(self, task: str) -> dict[int, float]:
        """Rate of each level of a task."""
        return {level: s.rate for (name, level), s in self.by_level.items() if name == task}

    @property
    def skills(self) -> list[str]:
        """The tasks that count in the mean. Small talk is no skill, open sets are not ours, and
        transfer tasks count only where no trained task was asked."""
        ours = [name for name in self.by_task if name in ALL_TASKS and name not in NO_SKILL]
        return [name for name in ours if name not in TRANSFER] or ours

    @property
    def mean(self) -> float:
        """Mean rate over the skills; nan where none was asked for."""
        return self.mean_of(Score.passes, 1).value

    def mean_of(self, measure: Callable[[Score, int], Estimate], k: int) -> Estimate:
        """The mean over the skills of `Score.passes` or `Score.majority`, with its interval."""
        return mean_of_estimates([measure(self.by_task[name], k) for name in self.skills])

    def as_json(self) -> dict[str, Any]:
        """Everything but the mistakes, as numbers, lists and dicts; what a report's table reads."""
        tries = numbers_of_tries(next((s.samples for s in self.by_task.values()), 1))
        several, means = len(self.skills) > 1, {}
        for name, measure in (("pass", Score.passes), ("majority", Score.majority)):
            means[name] = {str(k): self.mean_of(measure, k).as_json() for k in tries}
        return {
            "skills": self.skills,
            "mean": self.mean if several else None, "means": means if several else None,
            "contamination": self.contamination, "mean_tokens": self.mean_tokens,
            "cut": self.cut, "too_long": self.too_long,
            "tasks": {
                task: score.as_json() | {"levels": {
                    str(level): s.as_json() for (name, level), s in self.by_level.items()
                    if name == task
                }}
                for task, score in self.by_task.items()
            },
        }  # fmt: skip


@dataclass(frozen=True)
class Exam:
    """Problems of one kind, drawn when they are first asked for, and who judges the answers.

    500 problems of all tasks take some seconds to draw, and are not drawn for nothing.
    """

    draw: Callable[[], list[Problem]]
    judge: Callable[[Problem, str], Verdict]

    @cached_property
    def problems(self) -> list[Problem]:
        return self.draw()


def fresh_problems(task: str, n: int, seed: int, levels: tuple[int, ...] | None = None) -> list[
    Problem
]:  # fmt: skip
    """n test-split problems of a task, its levels in turn."""
    rng = random.Random(f"eval:{seed}:{task}")
    levels = levels or ALL_TASKS[task].LEVELS
    return [sample(rng, task, levels[i % len(levels)], "test") for i in range(n)]


def task_exam(task: str, n: int, seed: int, levels: tuple[int, ...] | None = None) -> Exam:
    """n fresh problems; small talk has one level whatever `levels` says."""
    levels = None if task in NO_SKILL else levels
    return Exam(partial(fresh_problems, task, n, seed, levels), verify)


def evaluate(
    llm: LLM, tasks: list[str], n: int, seed: int, levels: tuple[int, ...] | None = None,
    max_tokens: int = 640,
) -> Evaluation:  # fmt: skip
    """Ask a model n fresh problems per task, once and greedily."""
    exams = [task_exam(task, n, seed, levels) for task in tasks]
    return examine(ask_model(llm), exams, Asking(seed=seed, max_tokens=max_tokens))


def examine(ask: Ask, exams: Sequence[Exam], asking: Asking) -> Evaluation:
    """Have all problems answered and judged; the problems of an exam are of one task."""
    by_task: dict[str, Score] = defaultdict(Score)
    by_level: dict[tuple[str, int], Score] = defaultdict(Score)
    mistakes, answers = [], []
    for exam, problem, given in _answered(ask, exams, asking):
        verdicts = [exam.judge(problem, answer.judged) for answer in given]
        right = tuple(verdict.score >= 1.0 for verdict in verdicts)
        votes = tuple(vote(problem, answer.judged) for answer in given)
        for score in (by_task[problem.task], by_level[problem.task, problem.level]):
            score.outcomes.append(Outcome(problem, right, votes))
        if not all(right):
            first = right.index(False)
            text = f"{given[first].reasoning}\n-> {given[first].text}"
            mistakes.append((problem, text, verdicts[first].reason))
        answers += [(answer.tokens, answer.state) for answer in given]
    ours = [p for exam in exams for p in exam.problems if p.task in ALL_TASKS]
    asked = [tokens for tokens, state in answers if state != "too_long"]
    return Evaluation(
        dict(by_task), dict(by_level), mistakes,
        contamination(ours, asking.seed) if ours else None,
        mean_tokens=sum(asked) / max(1, len(asked)),
        cut=sum(state == "cut" for _, state in answers) / max(1, len(answers)),
        too_long=sum(state == "too_long" for _, state in answers) / max(1, len(answers)),
    )  # fmt: skip


def vote(problem: Problem, text: str) -> str | None:
    """The answer as maj@k counts it; None for one that says nothing.

    Where the right answer is a number it is the number that the verifier would read (behind the
    last equals sign), else the text without case, spaces and a closing period. Two expressions for
    the same number are two answers: that they are alike is not known before they are judged.
    """
    if "number" in problem.gold:
        number = final_number(text)
        return None if number is None else str(number)
    answer = "".join(text.lower().split()).removesuffix(".")
    if problem.answer.removeprefix("-").isdecimal():
        answer = answer.rpartition("=")[2].removeprefix("+")
    return answer or None


def contamination(problems: list[Problem], seed: int) -> float:
    """Share of the questions that occur, up to case and spaces, among drawn training problems."""
    rng = random.Random(f"contamination:{seed}")
    asked = sorted({(p.task, p.level) for p in problems})
    trained: set[str] = set()
    with progress("drawing training problems") as show:
        for done, (task, level) in enumerate(asked):
            show(done, len(asked))
            for _ in range(TRAINING_DRAWS):
                trained.add(_bare(sample(rng, task, level, "train").question))
    return sum(_bare(p.question) in trained for p in problems) / len(problems)


def _answered(
    ask: Ask, exams: Sequence[Exam], asking: Asking
) -> Iterator[tuple[Exam, Problem, list[Answer]]]:
    """Each problem with its samples, asked as many at a time as memory should hold."""
    items = ((exam, i, p) for exam in exams for i, p in enumerate(exam.problems))
    while chunk := list(islice(items, max(1, ASKED_AT_ONCE // asking.samples))):
        questions = [
            question
            for _, i, problem in chunk
            for question in questions_of(problem.question, f"{problem.task}:{i}", asking)
        ]
        answers = iter(ask(questions, asking))
        for exam, _, problem in chunk:
            yield exam, problem, list(islice(answers, asking.samples))


def _bare(question: str) -> str:
    return "".join(question.lower().split())
