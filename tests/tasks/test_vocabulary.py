"""A vocabulary of 512 serves all trained tasks: short documents, and letters stay visible."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import ALL_TASKS, FIRST, TRAINED, sample, small_talk
from ingle.tasks.base import MAX_SEARCH, Problem
from ingle.tasks.words import COMMON, KNOWN
from ingle.training.tokenizer import build_tokenizer, known_words


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder, tasks=TRAINED)
    return Tokenizer.load(folder)


def _problems(task: str) -> list[Problem]:
    rng = random.Random(5)
    levels = ALL_TASKS[task].LEVELS
    return [sample(rng, task, levels[i % len(levels)], "train") for i in range(200)]


@pytest.mark.parametrize("task", TRAINED)
def test_documents_are_short_and_letters_visible(task: str, tokenizer: Tokenizer) -> None:
    for problem in _problems(task):
        trace = tokenizer.encode(problem.trace)
        whole = [*tokenizer.encode(problem.question), *trace, *tokenizer.encode(problem.answer)]
        assert tokenizer.vocab_size == 512 and len(trace) <= MAX_SEARCH and len(whole) < 550
        pieces = {tokenizer.token_bytes(token).decode() for token in trace}
        assert {p for p in pieces if len(p) > 1} <= {" from", " no", "no", " yes", "yes"}


def test_words_that_may_have_to_be_spelled_are_always_trained() -> None:
    spelled = {word.strip() for word in known_words(TRAINED)} & set(COMMON)
    assert spelled <= set(KNOWN)
    assert known_words() == known_words(FIRST) and len(known_words(TRAINED)) > 240


def test_the_sentence_of_small_talk_is_one_token_a_word(tokenizer: Tokenizer) -> None:
    for word in small_talk.ANSWER.replace(":", "").replace(",", "").replace(";", "").split():
        if word.isalpha() and len(word) > 1:
            assert len(tokenizer.encode(f" {word}")) == 1, word
