"""Verifiable worlds: every task generates problems with traces and judges answers.

A problem belongs to the train or the test split by the hash of its canonical key, so the same
problem in other words, or with numbers in another irrelevant order, never crosses the border.
"""

from __future__ import annotations

import hashlib
import random
from types import ModuleType
from typing import Literal

from ingle.tasks import (
    base_conversion,
    chat,
    countdown,
    gcd,
    letter_counting,
    products,
    sorting,
    spell_backward,
    sums,
)
from ingle.tasks.base import Problem, Verdict
from ingle.tasks.words import KNOWN

Split = Literal["train", "test"]

TASKS: dict[str, ModuleType] = {
    "sums": sums,
    "products": products,
    "gcd": gcd,
    "base_conversion": base_conversion,
    "sorting": sorting,
    "spell_backward": spell_backward,
    "letter_counting": letter_counting,
    "countdown": countdown,
    "chat": chat,
}

TEST_SHARE = 0.1

__all__ = ["TASKS", "Problem", "Split", "Verdict", "examples", "sample", "split_of", "verify"]


def split_of(key: str) -> Split:
    """The split of a canonical key: one key in ten, by SHA-256, is test.

    Words that questions are made of are always trained: the tokenizer keeps them whole, so how
    they are spelled has to be learned word by word.
    """
    task, *parts = key.split(":")
    if task in (spell_backward.NAME, letter_counting.NAME) and parts and parts[0] in KNOWN:
        return "train"
    draw = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return "test" if draw < TEST_SHARE else "train"


def sample(rng: random.Random, task: str, level: int, split: Split) -> Problem:
    """Draw problems of a task and level until one falls into the split."""
    generate = TASKS[task].generate
    while True:
        problem: Problem = generate(rng, level)
        if split_of(problem.key) == split:
            return problem


def verify(problem: Problem, answer_text: str) -> Verdict:
    """Judge the text after `</think>`; any text gets a verdict, none raises."""
    verdict: Verdict = TASKS[problem.task].verify(problem, answer_text)
    return verdict


def examples() -> list[str]:
    """Typical questions, one or two a task, for the page, the banner and the chat."""
    first = list(countdown.EXAMPLES)
    rest = [text for task in TASKS.values() if task is not countdown for text in task.EXAMPLES]
    return first + rest
