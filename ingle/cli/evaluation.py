"""What `ingle eval` prints: a row a task and a row a level, each measure with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingle.training.evaluation.evaluate import Score
from ingle.training.evaluation.passes import numbers_of_tries

if TYPE_CHECKING:
    from ingle.statistics import Estimate
    from ingle.training.evaluation.evaluate import Evaluation


def render(found: Evaluation, samples: int, seconds: float) -> str:
    """The table and what has to be known to read it."""
    tries = numbers_of_tries(samples)
    columns = {"pass@1": (Score.passes, 1)}
    if (k := tries[-1]) > 1:
        columns |= {f"pass@{k}": (Score.passes, k), f"maj@{k}": (Score.majority, k)}
    heads = "".join(f"{name:>8}   95 % interval" for name in columns)
    lines = [f"{'task':<20}{heads}{'problems':>11}"]
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
            lines.append(f"mean pass@k          {_series(found, tries)}")
    return "\n".join([*lines, *_notes(found, seconds)])


def _series(found: Evaluation, tries: tuple[int, ...]) -> str:
    values = [(k, found.mean_of(Score.passes, k).value) for k in tries]
    return ", ".join(f"k={k} {100 * value:.1f} %" for k, value in values)


def _row(name: str, estimates: list[Estimate], n: int | None = None) -> str:
    cells = "".join(
        f"{100 * e.value:7.1f}%{100 * e.low:8.1f} to {100 * e.high:5.1f}" for e in estimates
    )
    return f"{name:<20}{cells}" + ("" if n is None else f"{n:11}")


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
