"""Count a letter in a word: each letter, whether it is the one (+), and the count so far.

How many r are in strawberry?
r: s-0 t-0 r+1 a-1 w-1 b-1 e-1 r+2 r+3 y-3

The sign comes first, so that comparing and counting are two facts.
"""

from __future__ import annotations

import random

from ingle.tasks.base import Problem, Verdict, verify_integer
from ingle.tasks.phrasing import phrase, vary_case
from ingle.tasks.words import draw_word

NAME = "letter_counting"
TITLE = "Counting letters"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("How many r are in strawberry?", "count the letter e in cheese")

BARE = (
    "count {c} in {w}",
    "{c} in {w}",
    'count "{c}" in "{w}"',
    "how many {c} in {w}",
    "number of {c} in {w}",
)
TEMPLATES = (
    "How many {c} are in {w}?",
    "How many {c} are there in {w}?",
    "How many {c}'s are in {w}?",
    "How many {c}'s are there in {w}?",
    'How many {c}s are in "{w}"?',
    "How many {c}s are in {w}?",
    'How many "{c}" are in "{w}"?',
    "How many times does {c} appear in {w}?",
    'How many times does the letter {c} appear in "{w}"?',
    'How many times is the letter "{c}" in {w}?',
    "How many letters {c} are in {w}?",
    "How many of the letter {c} are in the word {w}?",
    'How many {c} are in the word "{w}"?',
    "How many {c}'s does the word {w} have?",
    "Count the letter {c} in {w}.",
    'Count the letter "{c}" in the word "{w}".',
    "Count the {c}'s in {w}.",
    "Count {c} in the word {w}.",
    "How often does {c} occur in {w}?",
    "What is the number of {c} in {w}?",
    "Please count the letter {c} in {w}.",
)
PHRASES = BARE + TEMPLATES
_LENGTHS = {1: (3, 5), 2: (4, 8), 3: (6, 12), 4: (11, 15), 5: (13, 18)}
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def generate(rng: random.Random, level: int) -> Problem:
    """A word of 3-5, 4-8 or 6-12 letters (harder: up to 18); the letter is mostly in it."""
    word = draw_word(rng, *_LENGTHS[level])
    letter = rng.choice(word) if rng.random() < 0.75 else rng.choice(_ALPHABET)
    if rng.random() < 0.15:
        letter = max(word, key=word.count)
    shown = letter.upper() if rng.random() < 0.06 else letter
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, c=shown, w=vary_case(rng, word)),
        trace=solve(word, letter),
        answer=str(word.count(letter)),
        key=f"{NAME}:{word}:{letter}",
        gold={"count": word.count(letter)},
    )


def solve(word: str, letter: str) -> str:
    """The letter sought, then every letter of the word with its sign and the count so far."""
    steps = [
        f"{here}{'+' if here == letter else '-'}{word[: end + 1].count(letter)}"
        for end, here in enumerate(word)
    ]
    return f"{letter}: {' '.join(steps)}"


def verify(problem: Problem, text: str) -> Verdict:
    """Compare with the count."""
    return verify_integer(problem.gold["count"], text)
