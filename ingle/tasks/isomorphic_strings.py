"""Never trained: can the letters of one string be renamed, one to one, to give another?

There is no trace: the task is asked only to see what carries over from the trained ones.
"""

from __future__ import annotations

import random

from ingle.tasks.base import Problem, Verdict
from ingle.tasks.choices import verify_choice
from ingle.tasks.phrasing import phrase

NAME = "isomorphic_strings"
TITLE = "Isomorphic strings"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("Are the strings egg and add isomorphic?",)

BARE = ("{a}, {b}: isomorphic, yes or no?", "isomorphic: {a} {b}?")
TEMPLATES = (
    "Are the strings {a} and {b} isomorphic?",
    "Are {a} and {b} isomorphic? Answer yes or no.",
    "Is {a} isomorphic to {b}? Answer yes or no.",
    "Can the letters of {a} be replaced, one to one, to make {b}?",
    "Can {a} become {b} if each letter is always replaced by the same other letter?",
    "Yes or no: {a} and {b} have the same pattern of letters.",
)
PHRASES = BARE + TEMPLATES
_SHAPES = {1: (3, 4, 3), 2: (4, 6, 4), 3: (6, 8, 5), 4: (8, 12, 6), 5: (12, 18, 8)}
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def generate(rng: random.Random, level: int) -> Problem:
    """3-4, 4-6 or 6-8 letters (harder: up to 18); half of the pairs are isomorphic."""
    shortest, longest, letters = _SHAPES[level]
    wanted = rng.random() < 0.5
    while True:
        length = rng.randint(shortest, longest)
        pool = rng.sample(_ALPHABET, letters)
        one = "".join(rng.choice(pool) for _ in range(length))
        renamed = dict(zip(pool, rng.sample(_ALPHABET, letters), strict=True))
        other = [renamed[letter] for letter in one]
        if not wanted:
            other[rng.randrange(length)] = rng.choice(list(renamed.values()))
        two = "".join(other)
        if isomorphic(one, two) == wanted and len(set(one)) < length:
            break
    answer = "yes" if wanted else "no"
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, a=one, b=two),
        trace="",
        answer=answer,
        key=f"{NAME}:{','.join(sorted((one, two)))}",
        gold={"answer": answer},
    )


def isomorphic(one: str, two: str) -> bool:
    """Whether the pairs of letters at equal places make a one-to-one map."""
    pairs = set(zip(one, two, strict=True))
    return len(pairs) == len(set(one)) == len(set(two))


def verify(problem: Problem, text: str) -> Verdict:
    """Accept `yes` or `no`."""
    return verify_choice(problem.gold["answer"], ("yes", "no"), text)
