"""Never trained: the fewest swaps of two bits that make a binary string alternate.

There is no trace: the task is asked only to see what carries over from the trained ones.
"""

from __future__ import annotations

import random

from ingle.tasks.base import Problem, Verdict, verify_integer
from ingle.tasks.phrasing import phrase

NAME = "binary_alternation"
TITLE = "Alternating bits"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("How many swaps make the binary string 1100 alternate?",)

BARE = ("swaps to make {s} alternate", "{s} alternate: how many swaps?")
TEMPLATES = (
    "How many swaps make the binary string {s} alternate? Answer -1 if none do.",
    "What is the smallest number of swaps that makes {s} alternate? Answer -1 if there is none.",
    "Find the smallest number of swaps after which no two neighbors in {s} are the same, or -1.",
    "Swap any two bits of {s} until it alternates. How many swaps are needed? (-1 if impossible)",
    "The bits of {s} should alternate. How many swaps of two bits does it take, or -1?",
    "Count the fewest swaps of two bits that make {s} alternate (-1 if impossible).",
)
PHRASES = BARE + TEMPLATES
_LENGTHS = {1: (5, 8), 2: (8, 10), 3: (10, 14), 4: (14, 20), 5: (20, 30)}


def generate(rng: random.Random, level: int) -> Problem:
    """5-8, 8-10 or 10-14 bits (harder: up to 30); one in seven cannot alternate."""
    while True:
        length = rng.randint(*_LENGTHS[level])
        ones = (length + rng.randint(0, 1)) // 2 if rng.random() < 0.85 else rng.randint(0, length)
        bits = ["1"] * ones + ["0"] * (length - ones)
        rng.shuffle(bits)
        string = "".join(bits)
        swaps = fewest_swaps(string)
        if swaps:  # nothing to do is left out
            break
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, s=string),
        trace="",
        answer=str(swaps),
        key=f"{NAME}:{string}",
        gold={"swaps": swaps},
    )


def fewest_swaps(string: str) -> int:
    """Half of the places that differ from the nearer alternating string, -1 where there is none."""
    counts = []
    for first in "01":
        other = "10"[int(first)]
        wanted = [first if place % 2 == 0 else other for place in range(len(string))]
        if sorted(wanted) == sorted(string):
            counts.append(sum(a != b for a, b in zip(wanted, string, strict=True)) // 2)
    return min(counts, default=-1)


def verify(problem: Problem, text: str) -> Verdict:
    """Compare with the number of swaps."""
    return verify_integer(problem.gold["swaps"], text)
