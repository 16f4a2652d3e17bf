"""Multiplication: one row for each digit of the second number, then the rows added.

    What is 47 * 85?
    47*5: 7*5+0=35>5 4*5+3=23>235
    47*80: 7*8+0=56>60 4*8+5=37>3760
    0235+3760: 5+0+0=05>5 3+6+0=09>95 2+7+0=09>995 0+3+0=03>3995

A row is always one digit wider than the number, so that its place never depends on a carry.
"""

from __future__ import annotations

import random

from ingle.tasks.base import Problem, Verdict, verify_integer
from ingle.tasks.columns import add, strip, times_digit
from ingle.tasks.phrasing import phrase

NAME = "products"
TITLE = "Multiplication"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("What is 23 * 14?", "multiply 6 by 48")

BARE = ("{a}*{b}=", "{a}*{b}", "{a} * {b}", "{a}x{b}", "{a} x {b}", "{a} * {b} =")
TEMPLATES = (
    "What is {e}?",
    "What's {e}?",
    "Calculate {e}.",
    "Compute {e}.",
    "How much is {e}?",
    "Work out {e}.",
    "Can you work out {e}?",
    "Solve {e}.",
    "Please calculate {e}.",
    "{e} = ?",
    "{e}?",
    "What is the result of {e}?",
    "Tell me what {e} is.",
    "Multiply {a} by {b}.",
    "Multiply {a} and {b}.",
    "Multiply {a} with {b}.",
    "Please multiply {a} by {b}.",
    "{a} times {b}",
    "What is {a} times {b}?",
    "What's {a} times {b}?",
    "How much is {a} times {b}?",
    "{a} multiplied by {b}",
    "What is {a} multiplied by {b}?",
    "What is the product of {a} and {b}?",
    "Find the product of {a} and {b}.",
    "Product of {a} and {b}",
)
PHRASES = BARE + TEMPLATES


def generate(rng: random.Random, level: int) -> Problem:
    """Level 1 up to 2x1 digits, 2 2x2, 3 3x1 and 3x2; harder 3x3 and 4x3."""
    shapes = {1: (2, 1), 2: (2, 2), 3: (3, rng.choice((1, 2))), 4: (3, 3), 5: (4, 3)}
    wide, narrow = shapes[level]
    if level == 1 and rng.random() < 0.15:
        wide = 1
    left, right = _number(rng, wide), _number(rng, narrow)
    if rng.random() < 0.35:
        left, right = right, left
    low, high = sorted((left, right))
    e = rng.choice(("{}*{}", "{} * {}", "{} x {}", "{}x{}")).format(left, right)
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, a=left, b=right, e=e),
        trace=solve(left, right),
        answer=str(left * right),
        key=f"{NAME}:{low},{high}",
        gold={"product": left * right},
    )


def solve(left: int, right: int) -> str:
    """The trace; the number with fewer digits gives the rows."""
    number, digits = str(left), str(right)
    if len(number) < len(digits):
        number, digits = digits, number
    lines, total = [], ""
    for zeros, digit in enumerate(reversed(digits)):
        line, row = times_digit(number, int(digit), zeros)
        lines.append(line)
        if zeros:
            line, total = add(total, row)
            lines.append(line)
        else:
            total = row
    return "\n".join(lines) + strip(total)


def verify(problem: Problem, text: str) -> Verdict:
    """Compare with the product."""
    return verify_integer(problem.gold["product"], text)


def _number(rng: random.Random, digits: int) -> int:
    return rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)
