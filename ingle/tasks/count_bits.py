"""Count the ones of a number in binary: halve, and add each remainder to the count.

How many 1 bits are in 45?
45/2=22r1>1
22/2=11r0>1
11/2=5r1>2
5/2=2r1>3
2/2=1r0>3
1/2=0r1>4
"""

from __future__ import annotations

import random

from ingle.tasks.base import Problem, Verdict, verify_integer
from ingle.tasks.phrasing import phrase

NAME = "count_bits"
TITLE = "Counting bits"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("How many 1 bits are in 45?", "count the ones of 200 in binary")

BARE = ("bits of {n}", "count bits {n}", "ones of {n} in binary", "1 bits in {n}")
TEMPLATES = (
    "How many 1 bits are in {n}?",
    "How many bits are 1 in {n}?",
    "How many ones are in {n} in binary?",
    "How many ones does {n} have in binary?",
    "How many 1 bits does the number {n} have?",
    "How many 1 bits are in the binary number of {n}?",
    "Count the 1 bits in {n}.",
    "Count the ones of {n} in binary.",
    "Count the 1 bits of the number {n}.",
    "What is the number of 1 bits in {n}?",
)
PHRASES = BARE + TEMPLATES
_LIMITS = {1: 63, 2: 255, 3: 1023, 4: 4095, 5: 65535}


def generate(rng: random.Random, level: int) -> Problem:
    """Numbers up to 63, 255 or 1023 (harder: 12 and 16 bits)."""
    number = rng.randint(1, _LIMITS[level])
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, n=number),
        trace=solve(number),
        answer=str(number.bit_count()),
        key=f"{NAME}:{number}",
        gold={"bits": number.bit_count()},
    )


def solve(number: int) -> str:
    """One halving a line, each with the count so far."""
    lines, count = [], 0
    while number:
        count += number % 2
        lines.append(f"{number}/2={number // 2}r{number % 2}>{count}")
        number //= 2
    return "\n".join(lines)


def verify(problem: Problem, text: str) -> Verdict:
    """Compare with the count."""
    return verify_integer(problem.gold["bits"], text)
