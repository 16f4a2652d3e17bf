"""Never trained: can all courses be finished, when some must be taken before others?

There is no trace: the task is asked only to see what carries over from the trained ones.
"""

from __future__ import annotations

import random

from ingle.tasks.base import Problem, Verdict
from ingle.tasks.choices import verify_choice
from ingle.tasks.phrasing import phrase

NAME = "course_schedule"
TITLE = "Course schedules"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("Course 0 comes before 1, 1 comes before 2. Can all 3 courses be finished?",)

BARE = ("{n} courses: {r}. Can all be finished?", "{n} courses, {r}. Possible, yes or no?")
TEMPLATES = (
    "There are {n} courses. {r}. Can all courses be finished?",
    "There are {n} courses, 0 to {last}. {r}. Can you finish all of them?",
    "Of {n} courses, {r}. Is there an order that works for all? Answer yes or no.",
    "Can all {n} courses be finished if {r}?",
    "Can you take all {n} courses if {r}? Answer yes or no.",
    "Is it possible to finish {n} courses, 0 to {last}, when {r}?",
)
PHRASES = (*BARE, *TEMPLATES, "0 comes before 0")
_SHAPES = {1: (3, 3), 2: (4, 5), 3: (5, 7), 4: (7, 10), 5: (9, 14)}

Pair = tuple[int, int]


def generate(rng: random.Random, level: int) -> Problem:
    """3, 4 or 5 courses (harder: up to 9); half of the schedules have a circle."""
    courses, most = _SHAPES[level]
    wanted = rng.random() < 0.5
    pairs = [(a, b) for a in range(courses) for b in range(courses) if a != b]
    while True:
        rules = rng.sample(pairs, rng.randint(courses - 1, most))
        if finishable(courses, rules) == wanted:
            break
    said = ", ".join(f"{first} comes before {second}" for first, second in rules)
    answer = "yes" if wanted else "no"
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, n=courses, last=courses - 1, r=said),
        trace="",
        answer=answer,
        key=f"{NAME}:{courses}:{','.join(f'{a}<{b}' for a, b in sorted(rules))}",
        gold={"answer": answer},
    )


def finishable(courses: int, rules: list[Pair]) -> bool:
    """Whether the rules (first, second) have no circle (Kahn 1962)."""
    left, rules = set(range(courses)), list(rules)
    while free := left - {second for _, second in rules}:
        left -= free
        rules = [rule for rule in rules if rule[0] in left]
    return not left


def verify(problem: Problem, text: str) -> Verdict:
    """Accept `yes` or `no`."""
    return verify_choice(problem.gold["answer"], ("yes", "no"), text)
