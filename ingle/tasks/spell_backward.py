"""Spell a word backward: number the letters, then walk the numbers down.

Spell "straw" backward.
0s 1t 2r 3a 4w
4w 3a 2r 1t 0s
"""

from __future__ import annotations

import random

from ingle.tasks.base import Problem, Verdict, right, tidy, wrong
from ingle.tasks.phrasing import phrase, vary_case
from ingle.tasks.words import draw_word

NAME = "spell_backward"
TITLE = "Spelling backward"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ('Spell "straw" backward.', "reverse kitchen")

BARE = (
    "reverse {w}",
    "{w} backward",
    "{w} backwards",
    'reverse "{w}"',
    "{w} reversed",
    "Reverse: {w}",
)
TEMPLATES = (
    'Spell "{w}" backward.',
    "Spell {w} backward.",
    "Spell {w} backwards.",
    'Spell "{w}" backwards.',
    "Spell the word {w} backward.",
    'Spell the word "{w}" backwards.',
    "How do you spell {w} backwards?",
    'Reverse "{w}".',
    "Reverse the word {w}.",
    'Reverse the word "{w}".',
    "Reverse the letters of {w}.",
    'Reverse the letters in "{w}".',
    "What is {w} backward?",
    "What is {w} spelled backwards?",
    'What is "{w}" backwards?',
    'Write "{w}" backwards.',
    "Write {w} backward.",
    "Please spell {w} backward.",
    "Can you reverse the word {w}?",
    "Spell '{w}' backwards.",
)
PHRASES = BARE + TEMPLATES
_LENGTHS = {1: (3, 5), 2: (4, 7), 3: (6, 10), 4: (10, 13), 5: (12, 16)}


def generate(rng: random.Random, level: int) -> Problem:
    """A word of 3-5, 4-7 or 6-10 letters (harder: up to 16), real or made up."""
    word = draw_word(rng, *_LENGTHS[level])
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, w=vary_case(rng, word)),
        trace=solve(word),
        answer=word[::-1],
        key=f"{NAME}:{word}",
        gold={"word": word},
    )


def solve(word: str) -> str:
    """The numbered letters forward, then backward; numbers beyond 9 start again at 0."""
    letters = [f"{index % 10}{letter}" for index, letter in enumerate(word)]
    return f"{' '.join(letters)}\n{' '.join(reversed(letters))}"


def verify(problem: Problem, text: str) -> Verdict:
    """Compare letters; case, quotes and hyphens or spaces between letters do not matter."""
    answer = tidy(text).strip("\"'").lower()
    joined = answer.replace("-", "").replace(" ", "")
    expected = problem.gold["word"][::-1]
    if joined == expected:
        return right()
    if not joined:
        return wrong("The answer is empty or far too long.")
    if joined == problem.gold["word"]:
        return wrong("The word is not reversed.")
    if len(joined) != len(expected):
        return wrong(f"The answer has {len(joined)} letters, the word {len(expected)}.")
    return wrong("Some letters are wrong.")
