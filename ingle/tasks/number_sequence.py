"""The next number of a sequence, found by trying rules in a fixed order.

    What comes next: 3, 5, 9, 15, 23?
    -: 5-3=2 9-5=4 no
    /: 5/3 no
    +: 3+5=8:9 no
    --: 5-3=2 9-5=4 15-9=6 23-15=8 4-2=2 6-4=2 8-6=2
    8+2=10 23+10=33

A rule is left at its first fact that does not fit: equal differences (-), equal quotients (/), each
number the sum of the two before it (+, with the number that stands there behind the colon), equal
differences of the differences (--), and, at the harder levels, two sequences in turn (:).
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import NamedTuple

from ingle.tasks.base import MAX_TRACE, Problem, Verdict, verify_integer
from ingle.tasks.phrasing import phrase

NAME = "number_sequence"
TITLE = "Number sequences"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("What comes next: 3, 5, 9, 15, 23?", "1, 4, 9, 16, 25, ...")

BARE = ("{s}, ?", "{s}, ...", "{s}, next?", "next: {s}")
TEMPLATES = (
    "What comes next: {s}?",
    "What comes next in {s}?",
    "What is the next number: {s}?",
    "What is the next number in {s}?",
    "What is the next number of {s}?",
    "Find the next number: {s}",
    "Find the next number in the sequence {s}.",
    "Continue the sequence {s}.",
    "Which number comes next: {s}?",
    "What number comes after {s}?",
    "Please continue: {s}",
    "What is the next term of {s}?",
)
PHRASES = BARE + TEMPLATES
LOW_SHARE = 0.5
_KINDS = {
    1: ("even",), 2: ("even", "even", "ratio", "sum", "second"),
    3: ("even", "ratio", "sum", "second"),
    4: ("ratio", "sum", "second", "turns"), 5: ("sum", "second", "turns"),
}  # fmt: skip
_STEPS = {1: 10, 2: 20, 3: 9, 4: 15, 5: 40}
_LARGEST = {1: 99, 2: 300, 3: 300, 4: 2000, 5: 9999}


def generate(rng: random.Random, level: int) -> Problem:
    """Equal steps, then quotients, sums and growing steps, then larger ones; harder: two sequences
    in turn."""
    while True:
        numbers = _draw(rng, level)
        if min(numbers) < 0 or max(numbers) > _LARGEST[level]:
            continue
        solved = solve(numbers)
        if solved is not None and (level in HARDER or len(solved[0]) <= MAX_TRACE):
            break
    trace, following = solved
    shown = rng.choice((", ", ", ", " ", ",")).join(map(str, numbers))
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, s=shown),
        trace=trace,
        answer=str(following),
        key=f"{NAME}:{','.join(map(str, numbers))}",
        gold={"next": following},
    )


def solve(numbers: list[int]) -> tuple[str, int] | None:
    """The trace and the next number by the first rule that fits, None where none does."""
    lines: list[str] = []
    for name, rule in _RULES.items():
        tried = rule(numbers)
        line = f"{name}: {' '.join(tried.facts)}"
        if tried.following is not None:
            return "\n".join((*lines, line, tried.last)), tried.following
        lines.append(f"{line} no")
    return None


def verify(problem: Problem, text: str) -> Verdict:
    """Compare with the next number."""
    return verify_integer(problem.gold["next"], text)


class Tried(NamedTuple):
    """What a rule found: its facts, and the last step and the next number where it fits."""

    facts: list[str]
    last: str = ""
    following: int | None = None


def _even(numbers: list[int]) -> Tried:
    facts = []
    step = numbers[1] - numbers[0]
    for before, after in pairwise(numbers):
        facts.append(f"{after}-{before}={after - before}")
        if after - before != step:
            return Tried(facts)
    return Tried(facts, _plus(numbers[-1], step), numbers[-1] + step)


def _ratio(numbers: list[int]) -> Tried:
    facts: list[str] = []
    factor = numbers[1] // numbers[0] if numbers[0] else 0
    for before, after in pairwise(numbers):
        if not before or after % before:
            return Tried([*facts, f"{after}/{before}"])
        facts.append(f"{after}/{before}={after // before}")
        if after // before != factor:
            return Tried(facts)
    following = numbers[-1] * factor
    return Tried(facts, f"{numbers[-1]}*{factor}={following}", following)


def _sum(numbers: list[int]) -> Tried:
    facts = []
    for (first, second), third in zip(pairwise(numbers), numbers[2:], strict=False):
        facts.append(f"{first}+{second}={first + second}:{third}")
        if first + second != third:
            return Tried(facts)
    following = numbers[-2] + numbers[-1]
    return Tried(facts, f"{numbers[-2]}+{numbers[-1]}={following}", following)


def _second(numbers: list[int]) -> Tried:
    steps = [after - before for before, after in pairwise(numbers)]
    facts = [f"{after}-{before}={after - before}" for before, after in pairwise(numbers)]
    growth = steps[1] - steps[0]
    for before, after in pairwise(steps):
        facts.append(f"{after}{-before:+d}={after - before}")
        if after - before != growth:
            return Tried(facts)
    step = steps[-1] + growth
    last = f"{_plus(steps[-1], growth)} {_plus(numbers[-1], step)}"
    return Tried(facts, last, numbers[-1] + step)


def _turns(numbers: list[int]) -> Tried:
    """Equal steps in every second number: first the places of the next one, then the others."""
    facts = []
    for start in (len(numbers) % 2, 1 - len(numbers) % 2):
        every = numbers[start::2]
        step = every[1] - every[0]
        for before, after in pairwise(every):
            facts.append(f"{after}-{before}={after - before}")
            if after - before != step:
                return Tried(facts)
    step = numbers[-2] - numbers[-4]
    return Tried(facts, _plus(numbers[-2], step), numbers[-2] + step)


def _plus(number: int, step: int) -> str:
    return f"{number}{step:+d}={number + step}"


_RULES = {"-": _even, "/": _ratio, "+": _sum, "--": _second, ":": _turns}


def _draw(rng: random.Random, level: int) -> list[int]:
    rule = rng.choice(_KINDS[level])
    length = rng.randint(4, 6) if level < 3 else rng.randint(5, 6)
    steps = _STEPS[level]
    first = rng.randint(0 if rule != "ratio" else 1, _LARGEST[level] // 3)
    if rule == "even":
        step = rng.choice((1, 1, -1)) * rng.randint(1, 2 * steps if level == 3 else steps)
        return [first + step * place for place in range(length)]
    if rule == "ratio":
        first, factor = rng.randint(1, 9), rng.randint(2, 5)
        return [first * factor**place for place in range(rng.randint(4, 5))]
    if rule == "sum":
        numbers = [rng.randint(1, steps), rng.randint(1, steps)]
        while len(numbers) < length:
            numbers.append(numbers[-2] + numbers[-1])
        return numbers
    if rule == "second":
        steps = min(steps, 9) if level < HARDER[0] else steps
        step, growth = rng.randint(-steps, steps), rng.choice((-1, 1)) * rng.randint(1, steps)
        if rng.random() < LOW_SHARE:  # squares and their like, which people ask first
            first, step, growth = rng.randint(0, 9), abs(step), min(abs(growth), rng.randint(1, 9))
        return [first + step * n + growth * n * (n - 1) // 2 for n in range(length)]
    other, one, two = rng.randint(0, first + 9), rng.randint(1, steps), rng.randint(1, steps)
    pairs = [(first + one * n, other + two * n) for n in range(4)]
    return [number for pair in pairs for number in pair][: rng.randint(6, 7)]
