"""Least common multiple: the greatest common divisor by Euclid, one division, one product.

What is the lcm of 36 and 84?
84,36: 36*2=72 84-72=12
36,12: 12*3=36 36-36=0
36/12=3 84*3=252
"""

from __future__ import annotations

import math
import random

from ingle.tasks import gcd
from ingle.tasks.base import MAX_TRACE, Problem, Verdict, verify_integer
from ingle.tasks.phrasing import phrase

NAME = "lcm"
TITLE = "Least common multiple"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("What is the lcm of 36 and 84?", "lcm(12, 18)")

BARE = ("lcm({a},{b})", "lcm({a}, {b})", "lcm {a} {b}", "LCM of {a} and {b}", "lcm {a}, {b}")
TEMPLATES = (
    "What is the lcm of {a} and {b}?",
    "What's the lcm of {a} and {b}?",
    "Find the lcm of {a} and {b}.",
    "What is the least common multiple of {a} and {b}?",
    "Find the least common multiple of {a} and {b}.",
    "Least common multiple of {a} and {b}",
    "Calculate the lcm of {a} and {b}.",
    "Compute lcm({a}, {b}).",
    "What is lcm({a}, {b})?",
    "Tell me the lcm of {a} and {b}.",
    "What is the smallest number that both {a} and {b} divide?",
)
PHRASES = BARE + TEMPLATES
_LIMITS = {1: 12, 2: 30, 3: 60, 4: 200, 5: 999}


def generate(rng: random.Random, level: int) -> Problem:
    """Two numbers up to 12, 30 or 60 (harder: 200, 999), half of them with a common factor."""
    limit = _LIMITS[level]
    while True:
        factor = rng.randint(2, max(2, limit // 4)) if rng.random() < 0.6 else 1
        left = factor * rng.randint(1, limit // factor)
        right = factor * rng.randint(1, limit // factor)
        trace = solve(left, right)
        if level in HARDER or len(trace) <= MAX_TRACE:
            break
    low, high = sorted((left, right))
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, a=left, b=right),
        trace=trace,
        answer=str(math.lcm(left, right)),
        key=f"{NAME}:{low},{high}",
        gold={"lcm": math.lcm(left, right), "numbers": (left, right)},
    )


def solve(left: int, right: int) -> str:
    """The trace; the smaller number is divided by the gcd, the larger one multiplied."""
    small, large = sorted((left, right))
    lines = gcd.solve(small, large).split("\n")
    common = int(lines.pop())
    quotient = small // common
    lines.append(f"{small}/{common}={quotient} {multiply(large, quotient)}")
    return "\n".join(lines)


def multiply(number: int, factor: int) -> str:
    """`84*3=252`, or tens and ones apart with their sum: `84*10=840 84*3=252 840+252=1092`."""
    parts = [int(d) * 10**p for p, d in reversed([*enumerate(reversed(str(factor)))]) if d != "0"]
    facts, total = [], 0
    for part in parts:
        facts.append(f"{number}*{part}={number * part}")
        if total:
            facts.append(f"{total}+{number * part}={total + number * part}")
        total += number * part
    return " ".join(facts)


def check(problem: Problem) -> str:
    """The multiple divided by both numbers."""
    multiple = problem.gold["lcm"]
    return " ".join(f"{multiple}/{n}={multiple // n}" for n in problem.gold["numbers"])


def verify(problem: Problem, text: str) -> Verdict:
    """Compare with the multiple."""
    return verify_integer(problem.gold["lcm"], text)
