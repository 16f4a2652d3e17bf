"""The words of the spelling tasks."""

from __future__ import annotations

import random

from ingle.tasks.words import COMMON, KNOWN, draw_word
from ingle.training.tokenizer import known_words


def test_common_words() -> None:
    assert len(set(COMMON)) == len(COMMON) >= 700
    assert all(word.isascii() and word.islower() and 3 <= len(word) <= 12 for word in COMMON)


def test_words_that_are_one_token_are_drawn_often() -> None:
    tokens = {word.strip().lower() for word in known_words()[:240]}
    assert {word for word in tokens if 3 <= len(word) <= 12} == set(KNOWN)
    rng = random.Random(0)
    drawn = [draw_word(rng, 3, 8) for _ in range(4000)]
    assert 0.08 < sum(word in KNOWN for word in drawn) / len(drawn) < 0.25
    assert 0.35 < sum(word not in {*KNOWN, *COMMON} for word in drawn) / len(drawn) < 0.55


def test_lengths_are_kept() -> None:
    rng = random.Random(1)
    for shortest, longest in ((3, 5), (6, 12), (13, 18)):
        lengths = {len(draw_word(rng, shortest, longest)) for _ in range(300)}
        assert lengths == set(range(shortest, longest + 1))
