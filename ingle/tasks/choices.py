"""Answers that are one of a few words, and lists of words."""

from __future__ import annotations

from collections.abc import Sequence

from ingle.tasks.base import Verdict, right, tidy, wrong


def verify_choice(expected: str, choices: Sequence[str], text: str) -> Verdict:
    """Accept exactly one of the words, in any case; `expected` and `choices` are lower case."""
    answer = tidy(text).strip("\"'").lower()
    if answer not in choices:
        return wrong(f"The answer is none of {', '.join(choices)}.")
    if answer != expected:
        return wrong(f"It is not {answer}.")
    return right()


def split_words(text: str) -> list[str]:
    """The words of an answer in lower case, without commas, quotes and brackets."""
    answer = tidy(text).lower()
    for mark in ",;\"'[]()":
        answer = answer.replace(mark, " ")
    return answer.split()
