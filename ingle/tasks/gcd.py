"""Greatest common divisor by Euclid's algorithm.

    What is the gcd of 36 and 84?
    84,36: 36*2=72 84-72=12
    36,12: 12*3=36 36-36=0
    12

A quotient of several digits is taken one digit at a time: `3*100=300 397-300=97 3*30=90 ...`.
"""

from __future__ import annotations

import math
import random

from ingle.tasks.base import MAX_TRACE, Problem, Verdict, verify_integer
from ingle.tasks.phrasing import phrase

NAME = "gcd"
TITLE = "Greatest common divisor"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("What is the gcd of 84 and 36?", "gcd(252, 105)")

BARE = ("gcd({a},{b})", "gcd({a}, {b})", "gcd {a} {b}", "GCD of {a} and {b}", "gcd {a}, {b}")
TEMPLATES = (
    "What is the gcd of {a} and {b}?",
    "What's the gcd of {a} and {b}?",
    "Find the gcd of {a} and {b}.",
    "What is the greatest common divisor of {a} and {b}?",
    "Find the greatest common divisor of {a} and {b}.",
    "Greatest common divisor of {a} and {b}",
    "What is the greatest common factor of {a} and {b}?",
    "What is the largest number that divides both {a} and {b}?",
    "Calculate the gcd of {a} and {b}.",
    "Compute gcd({a}, {b}).",
    "What is gcd({a}, {b})?",
    "Tell me the gcd of {a} and {b}.",
    "Which is the biggest number that divides {a} and {b}?",
    "highest common factor of {a} and {b}",
)
PHRASES = BARE + TEMPLATES
_LIMITS = {1: 30, 2: 99, 3: 300, 4: 999, 5: 9999}


def generate(rng: random.Random, level: int) -> Problem:
    """Two numbers up to 30, 99 or 300 (harder: 999, 9999), half of them with a common factor."""
    while True:
        left, right = _draw(rng, _LIMITS[level])
        trace = solve(left, right)
        if level in HARDER or len(trace) <= MAX_TRACE:
            break
    low, high = sorted((left, right))
    result = math.gcd(left, right)
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, a=left, b=right),
        trace=trace,
        answer=str(result),
        key=f"{NAME}:{low},{high}",
        gold={"gcd": result},
    )


def solve(left: int, right: int) -> str:
    """The trace of Euclid's algorithm, the larger number first."""
    small, large = sorted((left, right))
    lines = []
    while small:
        facts, rest = [], large
        while rest >= small:
            step = _largest_step(rest // small)
            part = small * step
            facts.append(f"{small}*{step}={part} {rest}-{part}={rest - part}")
            rest -= part
        lines.append(f"{large},{small}: {' '.join(facts)}")
        large, small = small, rest
    return "\n".join((*lines, str(large)))


def verify(problem: Problem, text: str) -> Verdict:
    """Compare with the divisor."""
    return verify_integer(problem.gold["gcd"], text)


def _draw(rng: random.Random, limit: int) -> tuple[int, int]:
    factor = rng.randint(2, max(2, limit // 4)) if rng.random() < 0.5 else 1
    return factor * rng.randint(1, limit // factor), factor * rng.randint(1, limit // factor)


def _largest_step(quotient: int) -> int:
    """The first digit of the quotient with zeros for the rest: 132 -> 100."""
    power: int = 10 ** (len(str(quotient)) - 1)
    return quotient // power * power
