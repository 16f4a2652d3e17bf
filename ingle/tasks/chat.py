"""Everything else a person may say: the honest answer of a very small model.

    Who are you?
    (no trace)
    I am a very small reasoner trained by ingle: I can add, subtract and multiply, ...

The questions only have to be varied enough for the model to learn the boundary: `chat_forms`
holds greetings, questions, requests, other languages, and near-misses that mention numbers or
words but are none of the tasks.
"""

from __future__ import annotations

import random

from ingle.tasks.base import Problem, Verdict, right, wrong
from ingle.tasks.chat_forms import FILLERS, FORMS, NEAR_MISSES
from ingle.tasks.phrasing import loosen
from ingle.tasks.words import COMMON, make_up

NAME = "chat"
TITLE = "Everything else"
LEVELS = (1,)
HARDER = ()
EXAMPLES = ("Who are you?",)

ANSWER = (
    "I am a very small reasoner trained by ingle: I can add, subtract and multiply, find a gcd, "
    "convert between number bases, sort numbers, spell backward, count letters, and solve "
    "countdown puzzles; try: Use 75, 6, 12 to make 3."
)
PHRASES = (*FORMS, *NEAR_MISSES)
# "reverse door" and "door backward" would be problems of another task.
_WORDS = tuple(word for word in COMMON if word not in ("reverse", "backward"))
_PUNCTUATION = ".,;:!?#@%&*()[]{}<>/\\|~^_-+=\"'"


def generate(rng: random.Random, level: int) -> Problem:
    """Something that is none of the tasks; there is one level."""
    question = _ask(rng)
    return Problem(
        task=NAME,
        level=level,
        question=question,
        trace="",
        answer=ANSWER,
        key=f"{NAME}:{' '.join(question.lower().split())}",
        gold={},
    )


def verify(problem: Problem, text: str) -> Verdict:
    """The exact text up to spaces."""
    if len(text) <= 2 * len(ANSWER) and " ".join(text.split()) == ANSWER:
        return right("The honest sentence.")
    return wrong("This is not the sentence on what the model can do.")


def _ask(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.5:
        text = _fill(rng, rng.choice(FORMS))
    elif draw < 0.8:
        text = _fill(rng, rng.choice(NEAR_MISSES))
    elif draw < 0.88:
        text = " ".join(_any_word(rng) for _ in range(rng.randint(1, 10)))
    elif draw < 0.96:
        text = _fill(rng, rng.choice(FORMS)) + " " + _fill(rng, rng.choice(FORMS))
    else:
        return _gibberish(rng)
    text = loosen(rng, text)
    # Never where there are digits: "3+4*5" without the star would be a sum.
    if rng.random() < 0.06 and not any(map(str.isdigit, text)):
        text = _mistype(rng, text)
    return text.upper() if rng.random() < 0.02 else text


def _fill(rng: random.Random, form: str) -> str:
    """Replace every field by a filler drawn anew: {n} small number, {m} number, {w} word, ..."""
    parts = form.split("{")
    text = parts[0]
    for part in parts[1:]:
        field, _, rest = part.partition("}")
        text += _filler(rng, field) + rest
    return text


def _filler(rng: random.Random, field: str) -> str:
    if field == "n":
        return str(rng.randint(1, 30))
    if field == "m":
        return str(rng.randrange(10 ** rng.randint(1, 4)))
    if field == "w":
        return _any_word(rng)
    return rng.choice(FILLERS[field])


def _any_word(rng: random.Random) -> str:
    if rng.random() < 0.75:
        return rng.choice(_WORDS)
    return make_up(rng, rng.randint(2, 9))


def _mistype(rng: random.Random, text: str) -> str:
    """Drop, double or swap one character."""
    place = rng.randrange(len(text))
    here, after = text[place], text[place + 1 : place + 2]
    slip = rng.choice(("", here + here, after + here))
    return text[:place] + slip + text[place + (2 if slip == after + here else 1) :] or "?"


def _gibberish(rng: random.Random) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    pools = (letters, letters + " ", _PUNCTUATION, letters + _PUNCTUATION + "0123456789 ")
    pool = rng.choice(pools)
    text = "".join(rng.choice(pool) for _ in range(rng.randint(1, 16))).strip()
    return text if not text.isdigit() else text + "?"
