"""Verifiable worlds: every task generates problems with traces and judges answers.

A problem belongs to the train or the test split by the hash of its canonical key, so the same
problem in other words, or with numbers in another irrelevant order, never crosses the border.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from types import ModuleType
from typing import Literal

from ingle.tasks import (
    base_conversion,
    binary_alternation,
    caesar_cipher,
    calendar_days,
    chat,
    count_bits,
    countdown,
    countdown4,
    course_schedule,
    fraction_simplification,
    gcd,
    isomorphic_strings,
    knights_knaves,
    lcm,
    leg_counting,
    letter_counting,
    maze,
    mini_sudoku,
    number_sequence,
    prime_factorization,
    products,
    rotate_matrix,
    simple_equations,
    small_talk,
    sorting,
    spell_backward,
    sums,
    syllogism,
    time_intervals,
    word_sorting,
)
from ingle.tasks.base import Problem, Verdict
from ingle.tasks.words import KNOWN

Split = Literal["train", "test"]

ALL_TASKS: dict[str, ModuleType] = {
    "sums": sums,
    "products": products,
    "gcd": gcd,
    "base_conversion": base_conversion,
    "sorting": sorting,
    "spell_backward": spell_backward,
    "letter_counting": letter_counting,
    "countdown": countdown,
    "chat": chat,
    "simple_equations": simple_equations,
    "number_sequence": number_sequence,
    "lcm": lcm,
    "fraction_simplification": fraction_simplification,
    "prime_factorization": prime_factorization,
    "count_bits": count_bits,
    "word_sorting": word_sorting,
    "caesar_cipher": caesar_cipher,
    "countdown4": countdown4,
    "mini_sudoku": mini_sudoku,
    "maze": maze,
    "syllogism": syllogism,
    "knights_knaves": knights_knaves,
    "leg_counting": leg_counting,
    "time_intervals": time_intervals,
    "calendar_days": calendar_days,
    "small_talk": small_talk,
    "binary_alternation": binary_alternation,
    "isomorphic_strings": isomorphic_strings,
    "course_schedule": course_schedule,
    "rotate_matrix": rotate_matrix,
}

# What a model from nothing learns first (`runs/mini.sh`).
FIRST = (
    "sums", "products", "gcd", "base_conversion", "sorting", "spell_backward", "letter_counting",
    "countdown", "chat",
)  # fmt: skip
# Asked as they are, never trained: how much carries over.
TRANSFER = ("binary_alternation", "isomorphic_strings", "course_schedule", "rotate_matrix")
# All that is ever trained; small talk comes with a sentence for all of them.
TRAINED = tuple(name for name in ALL_TASKS if name not in (*TRANSFER, "chat"))

# What the reasoner in `reasoner/` knows, by name: what is asked where nothing else is said.
TASKS = {name: ALL_TASKS[name] for name in TRAINED}

TEST_SHARE = 0.1

__all__ = [
    "ALL_TASKS", "FIRST", "TASKS", "TRAINED", "TRANSFER", "Problem", "Split", "Verdict",
    "examples", "sample", "split_of", "verify",
]  # fmt: skip


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
    generate = ALL_TASKS[task].generate
    while True:
        problem: Problem = generate(rng, level)
        if split_of(problem.key) == split:
            return problem


def verify(problem: Problem, answer_text: str) -> Verdict:
    """Judge the text after `</think>`; any text gets a verdict, none raises."""
    verdict: Verdict = ALL_TASKS[problem.task].verify(problem, answer_text)
    return verdict


def examples(tasks: Sequence[str] = TRAINED) -> list[str]:
    """Typical questions, one or two a task, for the page, the banner and the chat."""
    first = list(countdown.EXAMPLES)
    rest = [text for name in tasks if name != "countdown" for text in ALL_TASKS[name].EXAMPLES]
    return first + rest
