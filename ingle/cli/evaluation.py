"""What `ingle eval` prints: a row a task and a row a level, each measure with its interval.

What a model or another server wrote is cleaned: nothing in it can move a terminal's cursor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ingle.privacy.audit_report import clean
from ingle.training.evaluation.comparison import Comparison, Row, compare, points
from ingle.training.evaluation.evaluate import Score
from ingle.training.evaluation.passes import numbers_of_tries

if TYPE_CHECKING:
    from ingle.statistics import Estimate
    from ingle.tasks import Problem
    from ingle.training.evaluation.evaluate import Evaluation

_NAME = 24  # columns for what a row is called


def render(found: Evaluation, samples: int, seconds: float) -> str:
    """The table and what has to be known to read it."""
    tries = numbers_of_tries(samples)
    columns = {"pass@1": (Score.passes, 1)}
    if (k := tries[-1]) > 1:
        columns |= {f"pass@{k}": (Score.passes, k), f"maj@{k}": (Score.majority, k)}
    heads = "".join(f"{name:>8}   95 % interval" for name in columns)
    lines = [f"{'task':<{_NAME}}{heads}{'problems':>11}"]
    for task, score in found.by_task.items():
        parts = {level: s for (name, level), s in found.by_level.items() if name == task}
        named = {f"  level {level}": parts[level] for level in sorted(parts)}
        for name, s in {task: score, **(named if len(named) > 1 else {})}.items():
            lines.append(_row(name, [measure(s, k) for measure, k in columns.values()], s.n))
    if len(found.skills) > 1:
        lines.append(
            _row("mean of tasks", [found.mean_of(measure, k) for measure, k in columns.values()])
            + (
                "   (small talk, transfer, sets left out)"
                if len(found.skills) < len(found.by_task)
                else ""
            )
        )
        if len(tries) > 2:
            lines.append(f"{'mean pass@k':<{_NAME}}  {_series(found, tries)}")
    return "\n".join([*lines, *_notes(found, seconds)])


def _series(found: Evaluation, tries: tuple[int, ...]) -> str:
    values = [(k, found.mean_of(Score.passes, k).value) for k in tries]
    return ", ".join(f"k={k} {100 * value:.1f} %" for k, value in values)


def _row(name: str, estimates: list[Estimate], n: int | None = None) -> str:
    cells = "".join(
        f"{points(e.value):7.1f}%{points(e.low):8.1f} to {points(e.high):5.1f}" for e in estimates
    )
    return f"{name:<{_NAME}}{cells}" + ("" if n is None else f"{n:11}")


def _notes(found: Evaluation, seconds: float) -> list[str]:
    notes = []
    if found.contamination is not None:
        notes.append(
            f"contamination {100 * found.contamination:.2f} %: questions also found among fresh "
            "training problems"
        )
    for name, score in found.by_task.items():
        if (chance := score.chance()) is not None:
            notes.append(
                f"{name}: {100 * chance:.1f} % by chance, the same answers given to each other's "
                "questions"
            )
    if found.cut or found.too_long:
        notes.append(
            f"{100 * found.cut:.1f} % of the answers were cut at --max-tokens or the context; "
            f"{100 * found.too_long:.1f} % of the questions were too long to be asked (wrong)"
        )
    return [*notes, f"{found.mean_tokens:.0f} tokens an answer; {seconds:.0f} s"]


def render_change(evaluation: Mapping[str, Any]) -> str:
    """Both columns and the difference, a block a measure, and what has to be known to read it."""
    before, after = evaluation["before"], evaluation["after"]
    lines = []
    for measure in compare(evaluation):
        lines += [*_block(measure), ""]
    return "\n".join([
        *lines,
        f"before: {clean(before['model'])}, {before['mean_tokens']:.0f} tokens an answer; after: "
        f"{clean(after['model'])}, {after['mean_tokens']:.0f}",
        "* the interval of the difference leaves zero out; every problem was put to both",
        f"{before['seconds'] + after['seconds']:.0f} s",
    ])  # fmt: skip


def render_mistakes(mistakes: Sequence[tuple[Problem, str, str]]) -> str:
    """Wrong answers to look at, each with the trace that would have been right."""
    parts = []
    for problem, text, reason in mistakes:
        gold = f"Gold trace:\n{problem.trace}" if problem.trace else f"Gold: {problem.answer}"
        parts.append(f"\n{problem.question}\n{text}\n   {reason} {gold}\n")
    return "\n".join(clean(line) for line in "".join(parts).split("\n"))


def _block(measure: Comparison) -> list[str]:
    heads = "".join(f"{name:>8}   95 % interval" for name in ("before", "after"))
    lines = [f"{measure.name:<{_NAME}}{heads}{'points':>9}     95 % interval  problems"]
    return lines + [_change(row) for row in measure.lines]


def _change(row: Row) -> str:
    if row.n is None:
        name = "mean of tasks"
    else:
        name = row.task if row.level is None else f"  level {row.level}"
    before, gain = row.before, row.gain
    assert before is not None and gain is not None
    sure = " " if gain.low <= 0 <= gain.high else "*"
    change = (
        f"{points(gain.value):+9.1f}{points(gain.low):+9.1f} to {points(gain.high):+6.1f}{sure}"
    )
    return f"{_row(name, [before, row.after])}{change}" + ("" if row.n is None else f"{row.n:9}")
