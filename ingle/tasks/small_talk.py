"""Everything that is none of the trained tasks, for a reasoner that is trained on all of them.

    Who are you?
    (no trace)
    I am a very small reasoner trained by ingle: I can calculate, ...

The questions are those of `chat`, the small talk of the shipped reasoner, without the ones that are
problems now ("What is the lcm of 4 and 6?"); the sentence names what this reasoner can do.
"""

from __future__ import annotations

import random
import re

from ingle.tasks import chat
from ingle.tasks.base import MAX_ANSWER, Problem, Verdict, right, wrong

NAME = "small_talk"
TITLE = "Everything else"
LEVELS = (1,)
HARDER = ()
EXAMPLES = ("Who are you?",)

ANSWER = (
    "I am a very small reasoner trained by ingle: I can calculate, solve equations, sort and spell "
    "words, count, and solve small puzzles; try: Use 75, 6, 12 to make 3."
)
# What the near misses of `chat` have in common with tasks that have come since.
_TASKS_NOW = re.compile(
    r"\bx ?[-+=] ?\d|\dx\b|\blcm\b|common multiple|next number|comes after \d|prime factors"
    r"|\bfactor \d|\bsort (these words|\w+, \w+ and)|\blegs\b",
    re.IGNORECASE,
)
PHRASES = tuple(
    form for form in chat.PHRASES
    if not _TASKS_NOW.search(re.sub(r"\{[nm]\}", "0", form).replace("{w}", "w"))
)  # fmt: skip


def generate(rng: random.Random, level: int) -> Problem:
    """Something that is none of the tasks; there is one level."""
    while True:
        question = chat.generate(rng, level).question
        if not _TASKS_NOW.search(question):
            break
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
    if len(text) <= 2 * MAX_ANSWER and " ".join(text.split()) == ANSWER:
        return right("The honest sentence.")
    return wrong("This is not the sentence on what the model can do.")
