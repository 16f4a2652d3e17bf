"""Rejection sampling: answers that the verifier accepts, as a file of conversations to train on.

Asked of a teacher it is R1's distillation; asked of the model itself after reinforcement learning
it is the data of R1's second fine-tuning (arXiv 2501.12948, sections 2.3.3 and 2.4).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingle.tasks import Problem, verify
from ingle.training.data import Mixture
from ingle.training.evaluation.asking import Answer, Ask, Asking, questions_of

CHUNK = 256  # problems asked together; after each the file is good to go on from


@dataclass(frozen=True)
class Tally:
    """Problems asked, those with an accepted answer, and rows written."""

    asked: int = 0
    solved: int = 0
    rows: int = 0


def write_traces(
    ask: Ask, asking: Asking, mixture: Mixture, count: int, out: Path, keep: int = 1,
    show: Callable[[Tally], None] = lambda tally: None,
) -> Tally:  # fmt: skip
    """Ask `count` problems of a mixture and write what the verifier accepts to `out`.

    A row has `messages` (the answer's thought as `reasoning_content`), `task` and `level`. keep:
    most rows of one problem, the shortest first, none twice. A file that is there already is gone
    on with: problems and samples are a pure function of asking.seed and their number.
    """
    notes = out.with_name(out.name + ".progress")
    tally = _resume(out, notes)
    while tally.asked < count:
        numbers = range(tally.asked, min(count, tally.asked + CHUNK))
        problems = [mixture.problem(random.Random(f"{asking.seed}:{n}")) for n in numbers]
        questions = [
            question
            for number, problem in zip(numbers, problems, strict=True)
            for question in questions_of(problem.question, f"trace:{number}", asking)
        ]
        answers = ask(questions, asking)
        rows = [
            accepted(problem, answers[i * asking.samples : (i + 1) * asking.samples], keep)
            for i, problem in enumerate(problems)
        ]
        tally = Tally(
            numbers.stop, tally.solved + sum(map(bool, rows)), tally.rows + sum(map(len, rows))
        )
        with out.open("a", encoding="utf-8") as file:
            file.writelines(
                json.dumps(row, ensure_ascii=False) + "\n" for some in rows for row in some
            )
        state = {"tally": vars(tally), "bytes": out.stat().st_size}
        partial = notes.with_name(notes.name + ".partial")
        partial.write_text(json.dumps(state), "utf-8")
        partial.replace(notes)
        show(tally)
    return tally


def accepted(problem: Problem, answers: list[Answer], keep: int) -> list[dict[str, Any]]:
    """Rows of the answers that are whole and right."""
    good = {
        (answer.reasoning.strip(), answer.text.strip()): answer.tokens
        for answer in answers
        if answer.state == "done" and verify(problem, answer.judged).score >= 1.0
    }
    chosen = sorted(good, key=lambda pair: (good[pair], pair))[:keep]
    return [
        {
            "messages": [
                {"role": "user", "content": problem.question},
                {"role": "assistant", "reasoning_content": thought, "content": text},
            ],
            "task": problem.task,
            "level": problem.level,
        }
        for thought, text in chosen
    ]


def _resume(out: Path, notes: Path) -> Tally:
    """What is done, with the file cut to what was whole then."""
    if not (out.exists() and notes.exists()):
        out.write_text("", "utf-8")
        return Tally()
    state = json.loads(notes.read_text("utf-8"))
    with out.open("r+b") as file:
        file.truncate(state["bytes"])
    return Tally(**state["tally"])
