"""What every task shares: a problem with its trace, a verdict, and reading numbers from answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# A longer answer is wrong whatever it says; the bound also keeps int() away from huge strings.
MAX_ANSWER = 200
# Training costs per token: problems of the trained levels with longer traces are drawn again.
MAX_TRACE = 300
MAX_SEARCH = 450  # where a trace tries one way after the other


@dataclass(frozen=True)
class Problem:
    """One question with the reasoning and the answer that a model learns.

    `trace` is the text between `<think>` and `</think>`, `answer` what follows it, `key` the
    canonical problem (no phrasing, no irrelevant order) and `gold` what the verifier needs.
    """

    task: str
    level: int
    question: str
    trace: str
    answer: str
    key: str
    gold: Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """`score` is 1.0 (right) or 0.0 (wrong); `reason` is one sentence for people."""

    score: float
    reason: str


def right(reason: str = "The answer is right.") -> Verdict:
    """Score 1."""
    return Verdict(1.0, reason)


def wrong(reason: str) -> Verdict:
    """Score 0."""
    return Verdict(0.0, reason)


def tidy(text: str) -> str:
    """The answer without outer spaces and one closing period; "" when it is absurdly long."""
    text = text.strip()
    if len(text) > MAX_ANSWER:
        return ""
    return text.removesuffix(".").strip()


def verify_integer(expected: int, text: str) -> Verdict:
    """Accept the integer, alone or after an equals sign (`132`, `= 132`, `47+85 = 132.`)."""
    answer = tidy(text)
    if not answer:
        return wrong("The answer is empty or far too long.")
    last = answer.rpartition("=")[2].strip()
    if not re.fullmatch(r"[+-]? ?[0-9]+", last):
        return wrong("The answer is not one whole number.")
    found = int(last.replace(" ", ""))
    if found != expected:
        return wrong(f"{found} is not {expected}.")
    return right()
