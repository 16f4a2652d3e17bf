"""How many legs do some animals have together?

How many legs have 3 cows, 2 spiders and 4 ants?
3*4=12
2*8=16 12+16=28
4*6=24 28+24=52
"""

from __future__ import annotations

import random

from ingle.tasks.base import Problem, Verdict, verify_integer
from ingle.tasks.phrasing import phrase

NAME = "leg_counting"
TITLE = "Counting legs"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("How many legs do 3 cows, 2 spiders and 4 ants have?",)

BARE = ("legs of {a}", "{a}: legs?", "count the legs: {a}", "{a}, how many legs?")
TEMPLATES = (
    "How many legs do {a} have?",
    "How many legs do {a} have together?",
    "How many legs are there on {a}?",
    "Count the legs of {a}.",
    "What is the number of legs of {a}?",
    "There are {a}. How many legs are there?",
    "I have {a}. How many legs are that?",
    "I see {a}. How many legs do they have?",
    "Find the number of legs of {a}.",
)
LEGS = {
    "cow": 4, "dog": 4, "cat": 4, "pig": 4, "hen": 2, "duck": 2, "ant": 6, "bee": 6, "spider": 8,
    "crab": 10,
}  # fmt: skip
PHRASES = BARE + TEMPLATES
_SHAPES = {1: (1, 2, 9), 2: (2, 3, 9), 3: (3, 4, 15), 4: (5, 6, 15), 5: (7, 9, 30)}


def generate(rng: random.Random, level: int) -> Problem:
    """Up to 2, 3 or 4 kinds of animals (harder: up to 9), up to 9 or 15 of each."""
    fewest, most, largest = _SHAPES[level]
    kinds = rng.sample(list(LEGS), rng.randint(fewest, most))
    herd = [(rng.randint(1, largest), animal) for animal in kinds]
    words = [f"{count} {animal}{'s' if count > 1 else ''}" for count, animal in herd]
    listed = ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else words[0]
    total = sum(count * LEGS[animal] for count, animal in herd)
    canonical = sorted(f"{animal}*{count}" for count, animal in herd)
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, a=listed),
        trace=solve(herd),
        answer=str(total),
        key=f"{NAME}:{','.join(canonical)}",
        gold={"legs": total},
    )


def solve(herd: list[tuple[int, str]]) -> str:
    """A line for every kind: its legs, and the sum so far."""
    lines, total = [], 0
    for place, (count, animal) in enumerate(herd):
        legs = count * LEGS[animal]
        line = f"{count}*{LEGS[animal]}={legs}"
        lines.append(line + (f" {total}+{legs}={total + legs}" if place else ""))
        total += legs
    return "\n".join(lines)


def verify(problem: Problem, text: str) -> Verdict:
    """Compare with the number of legs; `52 legs` is as good as `52`."""
    return verify_integer(problem.gold["legs"], text.strip().removesuffix("legs"))
