"""Sort numbers in ascending order by insertion, one number a line.

    Sort 12, 75, 6.
    12,75,06
    75>12,75
    06>06,12,75

The first line is the list; each line after it takes the next number of the list and puts it into
the ones before. Numbers are zero-padded to equal width; the answer is the last line without zeros.
A number is compared with one other at a time, which a small model does better than finding the
smallest of many (docs/log.md).
"""

from __future__ import annotations

import bisect
import random
import re

from ingle.tasks.base import Problem, Verdict, right, tidy, wrong
from ingle.tasks.phrasing import enumerate_items, phrase

NAME = "sorting"
TITLE = "Sorting numbers"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("Sort 42, 7, 19, 88, 3.", "Put 310, 45, 99, 120 in ascending order.")

BARE = ("sort {items}", "sort: {items}", "sort({items})", "sort [{items}]", "Sort {items}")
TEMPLATES = (
    "Sort {items}.",
    "Sort these numbers: {items}.",
    "Sort the numbers {items}.",
    "Sort the list {items}.",
    "Put {items} in order.",
    "Put {items} in ascending order.",
    "Put these numbers in order: {items}.",
    "Please sort {items}.",
    "Can you sort {items}?",
    "Arrange {items} from smallest to largest.",
    "Order these numbers from smallest to largest: {items}",
    "Sort {items} in ascending order.",
    "Sort {items} from smallest to biggest.",
    "Sort in ascending order: {items}",
    "What is {items} in ascending order?",
)
PHRASES = BARE + TEMPLATES
_SHAPES = {1: (3, 4, 2), 2: (4, 6, 2), 3: (5, 7, 3), 4: (8, 12, 3), 5: (10, 16, 4)}


def generate(rng: random.Random, level: int) -> Problem:
    """Level 1 has 3-4 numbers up to 99, 2 has 4-6, 3 has 5-7 up to 999."""
    fewest, most, digits = _SHAPES[level]
    count = rng.randint(fewest, most)
    if rng.random() < 0.3:
        digits = max(1, digits - 1)
    numbers = [rng.randrange(10**digits) for _ in range(count)]
    if rng.random() < 0.3:
        numbers = [rng.randrange(10 ** rng.randint(1, digits)) for _ in range(count)]
    if rng.random() < 0.12:
        numbers[rng.randrange(count)] = rng.choice(numbers)
    ordered = sorted(numbers)
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, items=enumerate_items(rng, numbers)),
        trace=solve(numbers),
        answer=", ".join(map(str, ordered)),
        key=f"{NAME}:{','.join(map(str, ordered))}",
        gold={"ordered": tuple(ordered)},
    )


def solve(numbers: list[int]) -> str:
    """The list, then every number from the second on with the sorted list it makes."""
    width = max(len(str(number)) for number in numbers)
    padded = [str(number).zfill(width) for number in numbers]
    lines, ordered = [",".join(padded)], padded[:1]
    for number in padded[1:]:
        bisect.insort(ordered, number)
        lines.append(f"{number}>{','.join(ordered)}")
    return "\n".join(lines)


def verify(problem: Problem, text: str) -> Verdict:
    """Accept the numbers in order, separated by commas or spaces, with or without brackets."""
    answer = tidy(text).strip("[]() ")
    if not re.fullmatch(r"[0-9]+(?:[ ,\n]+[0-9]+)*", answer):
        return wrong("The answer is not a list of numbers.")
    found = tuple(int(item) for item in re.findall(r"[0-9]+", answer))
    expected = problem.gold["ordered"]
    if found == expected:
        return right()
    if sorted(found) == list(expected):
        return wrong("The numbers are right, their order is not.")
    return wrong("Numbers are missing, repeated or made up.")
