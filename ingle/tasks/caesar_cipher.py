"""Caesar's cipher with the key given: each letter moves along the alphabet.

    Encrypt "fuzzy" with shift 3.                     Decrypt "ixccb" with shift 3.
    f=06+3=09=i u=21+3=24=x z=26+3=29-26=03=c ...     i=09-3=06=f c=03+26=29-3=26=z ...

Letters are numbered from a=01 to z=26; what would fall off one end comes in at the other: a number
beyond 26 loses 26, one that is too small for the shift gains 26 first.
"""

from __future__ import annotations

import random

from ingle.tasks.base import Problem, Verdict, right, tidy, wrong
from ingle.tasks.phrasing import LOWER_SHARE, phrase
from ingle.tasks.words import draw_word

NAME = "caesar_cipher"
TITLE = "Caesar's cipher"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ('Encrypt "apple" with shift 3.', "decrypt dssoh with shift 3")

BARE = ("{do} {w} {k}", "{do} {w}, shift {k}", "{do} {w} with shift {k}", "shift {k}: {do} {w}")
TEMPLATES = (
    "{do} {w} with shift {k}.",
    '{do} "{w}" with shift {k}.',
    "{do} the word {w} with shift {k}.",
    "{do} {w} by a shift of {k}.",
    "{do} {w} with the Caesar cipher, shift {k}.",
    "{do} the Caesar cipher {w} with shift {k}.",
    "Please {do} {w} with shift {k}.",
    "Can you {do} {w} with a shift of {k}?",
    "Use a shift of {k} to {do} {w}.",
    'Use shift {k} to {do} the word "{w}".',
)
_VERBS = {True: ("encrypt", "encode"), False: ("decrypt", "decode")}
PHRASES = BARE + TEMPLATES + tuple(verb for verbs in _VERBS.values() for verb in verbs)
_SHAPES = {1: (3, 4, 3), 2: (3, 6, 9), 3: (4, 9, 25), 4: (9, 12, 25), 5: (12, 16, 25)}


def generate(rng: random.Random, level: int) -> Problem:
    """Words of 3-4, 3-6 or 4-9 letters (harder: up to 16), shifts up to 3, 9 and 25."""
    shortest, longest, largest = _SHAPES[level]
    word, shift = draw_word(rng, shortest, longest), rng.randint(1, largest)
    encrypt = rng.random() < 0.5
    given = word if encrypt else move(word, shift)
    found = move(word, shift) if encrypt else word
    verb, capital = rng.choice(_VERBS[encrypt]), rng.random() > LOWER_SHARE
    form = phrase(rng, TEMPLATES, BARE, do="{do}", w=given, k=shift)
    if form.startswith("{do}") and capital:
        verb = verb.capitalize()
    return Problem(
        task=NAME,
        level=level,
        question=form.replace("{do}", verb),
        trace=solve(given, shift if encrypt else -shift),
        answer=found,
        key=f"{NAME}:{word}:{shift}:{'to' if encrypt else 'from'}",
        gold={"text": found},
    )


def move(word: str, shift: int) -> str:
    """Each letter of a lower-case word moved along the alphabet."""
    return "".join(chr((ord(letter) - 97 + shift) % 26 + 97) for letter in word)


def solve(given: str, shift: int) -> str:
    """Every letter with its number, the sum and the letter of that."""
    return " ".join(_step(letter, shift) for letter in given)


def verify(problem: Problem, text: str) -> Verdict:
    """Compare letters; case, quotes and spaces or hyphens between letters do not matter."""
    answer = tidy(text).strip("\"'").lower().replace("-", "").replace(" ", "")
    wanted = problem.gold["text"]
    if answer == wanted:
        return right()
    if not answer:
        return wrong("The answer is empty or far too long.")
    if len(answer) != len(wanted):
        return wrong(f"The answer has {len(answer)} letters, not {len(wanted)}.")
    return wrong("Some letters are wrong.")


def _step(letter: str, shift: int) -> str:
    number = ord(letter) - 96
    moved = number + shift
    end = (moved - 1) % 26 + 1
    raised = f"+26={number + 26}" if moved < 1 else ""
    lowered = f"={moved}-26" if moved > 26 else ""
    return f"{letter}={number:02d}{raised}{shift:+d}{lowered}={end:02d}={chr(end + 96)}"
