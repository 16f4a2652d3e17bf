"""Rejection sampling: only what the verifier accepts is kept, and a stopped run goes on."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from ingle.tasks import verify
from ingle.training import traces
from ingle.training.data import Mixture
from ingle.training.evaluation.asking import Answer, Asking, Question
from ingle.training.traces import Tally, accepted, write_traces

ASKED = Mixture({"sums": 1.0}, chat=True, levels=(1,))
ASKING = Asking(samples=2, temperature=1.0, seed=3)


class Teacher:
    """Answers every third question rightly in its first sample, and wrongly in its second."""

    def __init__(self, fails_after: int = 10**9) -> None:
        self.calls, self.fails_after = 0, fails_after

    def __call__(self, questions: Sequence[Question], asking: Asking) -> list[Answer]:
        self.calls += 1
        if self.calls > self.fails_after:
            raise RuntimeError("gone")
        answers = []
        for index, question in enumerate(questions):
            right = index % 6 == 0
            answers.append(Answer(_solve(question.text) if right else "x", "thought", 9, "done"))
        return answers


def _solve(question: str) -> str:
    for number in range(700):
        problem = ASKED.problem(random.Random(f"{ASKING.seed}:{number}"))
        if problem.question == question:
            return problem.answer
    raise AssertionError


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_what_is_kept_is_right_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "CHUNK", 12)
    whole = tmp_path / "whole.jsonl"
    tally = write_traces(Teacher(), ASKING, ASKED, 60, whole)
    assert tally == Tally(asked=60, solved=20, rows=20)
    assert {row["task"] for row in rows(whole)} == {"sums"}
    message = rows(whole)[0]["messages"][1]
    assert message["role"] == "assistant" and message["reasoning_content"] == "thought"

    parts = tmp_path / "parts.jsonl"
    with pytest.raises(RuntimeError, match="gone"):
        write_traces(Teacher(fails_after=3), ASKING, ASKED, 60, parts)
    with parts.open("a") as file:  # killed while it wrote
        file.write('{"messages": [')
    assert write_traces(Teacher(), ASKING, ASKED, 60, parts) == tally
    assert parts.read_bytes() == whole.read_bytes()


def test_the_shortest_right_answers_are_kept_once() -> None:
    problem = ASKED.problem(random.Random(1))
    good = problem.answer
    answers = [
        Answer(good, "long thought", 30, "done"),
        Answer(good, "short", 5, "done"),
        Answer(good, "short", 5, "done"),
        Answer(good, "cut", 1, "cut"),
        Answer("nonsense", "wrong", 2, "done"),
    ]
    assert verify(problem, good).score == 1.0
    thoughts = [
        [row["messages"][1]["reasoning_content"] for row in accepted(problem, answers, keep)]
        for keep in (1, 5)
    ]
    assert thoughts == [["short"], ["short", "long thought"]]
