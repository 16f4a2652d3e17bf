"""Simplify a fraction: the greatest common divisor by Euclid, then two divisions.

Simplify 36/84.
84,36: 36*2=72 84-72=12
36,12: 12*3=36 36-36=0
36/12=3 84/12=7
"""

from __future__ import annotations

import math
import random
import re
from fractions import Fraction

from ingle.tasks import gcd
from ingle.tasks.base import MAX_TRACE, Problem, Verdict, right, tidy, wrong
from ingle.tasks.phrasing import phrase

NAME = "fraction_simplification"
TITLE = "Simplifying fractions"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("Simplify 36/84.", "reduce 45/60")

BARE = ("simplify {a}/{b}", "reduce {a}/{b}", "simplify: {a}/{b}", "{a}/{b} simplified")
TEMPLATES = (
    "Simplify {a}/{b}.",
    "Simplify the fraction {a}/{b}.",
    "Reduce {a}/{b}.",
    "Reduce the fraction {a}/{b}.",
    "Reduce {a}/{b} to lowest terms.",
    "Write {a}/{b} in lowest terms.",
    "What is {a}/{b} in lowest terms?",
    "What is {a}/{b} simplified?",
    "Please simplify {a}/{b}.",
    "Can you simplify {a}/{b}?",
)
PHRASES = BARE + TEMPLATES
_LIMITS = {1: 30, 2: 99, 3: 300, 4: 999, 5: 9999}


def generate(rng: random.Random, level: int) -> Problem:
    """Numbers up to 30, 99 or 300 (harder: 999, 9999); now and then nothing is to be done."""
    limit = _LIMITS[level]
    while True:
        factor = rng.randint(2, max(2, limit // 4)) if rng.random() < 0.9 else 1
        top = factor * rng.randint(1, limit // factor)
        bottom = factor * rng.randint(2, max(2, limit // factor))
        trace = solve(top, bottom)
        if top != bottom <= limit and (level in HARDER or len(trace) <= MAX_TRACE):
            break
    common = math.gcd(top, bottom)
    simplest = (top // common, bottom // common)
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, a=top, b=bottom),
        trace=trace,
        answer=str(Fraction(*simplest)),
        key=f"{NAME}:{top}/{bottom}",
        gold={"simplest": simplest, "common": common, "fraction": (top, bottom)},
    )


def solve(top: int, bottom: int) -> str:
    """Euclid's lines, then both numbers divided by what they have in common."""
    lines = gcd.solve(top, bottom).split("\n")
    common = int(lines.pop())
    lines.append(f"{top}/{common}={top // common} {bottom}/{common}={bottom // common}")
    return "\n".join(lines)


def check(problem: Problem) -> str:
    """Both numbers multiplied back."""
    common = problem.gold["common"]
    return " ".join(f"{n}*{common}={n * common}" for n in problem.gold["simplest"])


def verify(problem: Problem, text: str) -> Verdict:
    """Accept the simplest form only, both `7` and `7/1`."""
    answer = tidy(text).rpartition("=")[2].replace(" ", "")
    found = re.fullmatch(r"([0-9]+)(?:/([0-9]+))?", answer)
    if found is None:
        return wrong("The answer is not a fraction.")
    top, bottom = int(found[1]), int(found[2] or 1)
    wanted = problem.gold["simplest"]
    if (top, bottom) == wanted:
        return right()
    if bottom and top * wanted[1] == bottom * wanted[0]:
        return wrong("The fraction is right, but not in lowest terms.")
    return wrong(f"{answer} is not {wanted[0]}/{wanted[1]}.")
