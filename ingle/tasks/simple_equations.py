"""Linear equations with one unknown.

    Solve 7x + 4 = 3x + 20.
    7x+4=3x+20
    7-3=4 20-4=16
    16/4=4

The first line is the equation with the larger coefficient on the left. Then the coefficients are
brought to the left, the numbers to the right, and one is divided by the other.
"""

from __future__ import annotations

import random

from ingle.tasks.base import Problem, Verdict, verify_integer
from ingle.tasks.phrasing import phrase

NAME = "simple_equations"
TITLE = "Linear equations"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("Solve 7x + 4 = 3x + 20.", "x - 12 = 30, what is x?")

BARE = ("{e}", "{e}, {v}=?", "{e} {v}?", "solve {e}")
TEMPLATES = (
    "Solve {e}.",
    "Solve {e} for {v}.",
    "Solve the equation {e}.",
    "What is {v} if {e}?",
    "What is {v} in {e}?",
    "{e}, what is {v}?",
    "Find {v}: {e}",
    "Find {v} in {e}.",
    "Find the value of {v} in {e}.",
    "If {e}, what is {v}?",
    "For which {v} is {e}?",
    "Calculate {v} from {e}.",
)
PHRASES = BARE + TEMPLATES
_UNKNOWNS = "xxxxyznakt"
# largest coefficient, unknown and added number
_LIMITS = {1: (1, 30, 30), 2: (9, 12, 40), 3: (12, 12, 60), 4: (20, 40, 200), 5: (40, 99, 999)}


def generate(rng: random.Random, level: int) -> Problem:
    """x + b = c or ax = c, then ax + b = c, then ax + b = dx + e; harder: larger numbers."""
    left, right, value = _draw(rng, level)
    unknown = rng.choice(_UNKNOWNS)
    (a, b), (d, e) = left, right
    question = _write(rng, left, right, unknown)
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, e=question, v=unknown),
        trace=solve(left, right, unknown),
        answer=str(value),
        key=f"{NAME}:{a},{b}={d},{e}",
        gold={"value": value, "left": left, "right": right},
    )


def solve(left: tuple[int, int], right: tuple[int, int], unknown: str = "x") -> str:
    """The trace of ax + b = dx + e for the pairs (a, b) and (d, e); a is larger than d."""
    (a, b), (d, e) = left, right
    lines = [f"{side(left, unknown)}={side(right, unknown)}"]
    facts = []
    if d:
        facts.append(f"{a}-{d}={a - d}")
    if b:
        facts.append(f"{e}-{b}={e - b}" if b > 0 else f"{e}+{-b}={e - b}")
    if facts:
        lines.append(" ".join(facts))
    if a - d > 1:
        lines.append(f"{e - b}/{a - d}={(e - b) // (a - d)}")
    return "\n".join(lines)


def check(problem: Problem) -> str:
    """Both sides with the value put in."""
    value = problem.gold["value"]
    sides = (problem.gold["left"], problem.gold["right"])
    return " ".join(fact for pair in sides for fact in _put_in(pair, value))


def verify(problem: Problem, text: str) -> Verdict:
    """Compare with the value; `x = 4` is as good as `4`."""
    return verify_integer(problem.gold["value"], text)


def side(pair: tuple[int, int], unknown: str) -> str:
    """`7x+4`, `x-3`, `3x` or `20` for (7, 4), (1, -3), (3, 0) and (0, 20)."""
    factor, number = pair
    if not factor:
        return str(number)
    term = f"{factor}{unknown}" if factor > 1 else unknown
    return f"{term}{number:+d}" if number else term


def _put_in(pair: tuple[int, int], value: int) -> list[str]:
    factor, number = pair
    facts = [f"{factor}*{value}={factor * value}"] if factor > 1 else []
    if factor and number:
        facts.append(f"{factor * value}{number:+d}={factor * value + number}")
    return facts


def _draw(rng: random.Random, level: int) -> tuple[tuple[int, int], tuple[int, int], int]:
    """(a, b), (d, e) and the value with ax + b = dx + e, a > d, nothing below zero but b."""
    coefficient, largest, number = _LIMITS[level]
    value = rng.randint(0, largest)
    if level == 1 and rng.random() < 0.4:
        a, b = rng.randint(2, 9), 0
        value = rng.randint(0, 10)
    else:
        a = rng.randint(1, coefficient)
        b = rng.choice((-1, 1)) * rng.randint(1, number)
    d = 0
    if level >= 3 and rng.random() < 0.7:
        d = rng.randint(1, coefficient)
        a, d = max(a, d), min(a, d)
        a += a == d
    e = (a - d) * value + b
    if e < 0:
        b, e = -b, e - 2 * b
    return (a, b), (d, e), value


def _write(rng: random.Random, left: tuple[int, int], right: tuple[int, int], unknown: str) -> str:
    sides = [side(left, unknown), side(right, unknown)]
    if rng.random() < 0.2:  # a number first
        (a, b) = left
        if b > 0:
            sides[0] = f"{b}+{side((a, 0), unknown)}"
    if rng.random() < 0.2:
        sides.reverse()
    written = "=".join(sides)
    if rng.random() < 0.25:
        written = written.replace(unknown, f"*{unknown}") if written[0].isdigit() else written
        written = _no_lonely_star(written)
    if rng.random() < 0.6:
        for sign in "+-=":
            written = written.replace(sign, f" {sign} ")
    return written


def _no_lonely_star(written: str) -> str:
    """`7*x` keeps its star, `+*x` loses it."""
    for sign in "+-=":
        written = written.replace(f"{sign}*", sign)
    return written
