"""Before and after: two evaluations side by side, each measure with its interval and its change.

An evaluation is what `ingle eval --json` writes. A run's folder keeps two, {"before": ...,
"after": ...}, as `evaluation.json`; before is None where there is nothing to compare with. Where
both were asked the same problems the change is that of each problem (`paired_difference`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingle.statistics import (
    Estimate,
    difference,
    mean_of_estimates,
    mean_of_shares,
    paired_difference,
)
from ingle.training.evaluation.passes import pass_at_k

Scores = Mapping[str, Any]  # of a task or one of its levels, as `Score.as_json` writes them
FILE = "evaluation.json"


@dataclass(frozen=True)
class Row:
    """A task, one of its levels, or the mean of all. n: problems, None for the mean."""

    task: str
    level: str | None
    n: int | None
    before: Estimate | None
    after: Estimate
    gain: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """One measure of all tasks that both evaluations have.

    name: such as pass@1. rows: a task each. levels: by task, of those that have several. mean: over
    the tasks that count as skills, where there are several.
    """

    name: str
    rows: tuple[Row, ...]
    levels: Mapping[str, tuple[Row, ...]]
    mean: Row | None

    @property
    def lines(self) -> list[Row]:
        """All of it from top to bottom: each task, its levels, and the mean."""
        found = [row for task in self.rows for row in (task, *self.levels.get(task.task, ()))]
        return found if self.mean is None else [*found, self.mean]


def points(share: float) -> float:
    """Hundredths to one decimal place, without the sign of a zero."""
    return round(100 * share, 1) + 0.0


def compare(evaluation: Mapping[str, Any]) -> list[Comparison]:
    """pass@1 and, where there are several answers to each problem, pass@k and maj@k of the most.

    Raises LookupError, TypeError, ValueError or AttributeError for what is no comparison.
    """
    after = evaluation["after"]
    before = evaluation["before"] or None
    tasks = [task for task in after["tasks"] if before is None or task in before["tasks"]]
    if not tasks:
        return []
    asked = [e["tasks"][task] for e in (before, after) if e for task in tasks]
    most = min(max(map(int, scores["pass"])) for scores in asked)
    measures = [("pass", k) for k in sorted({1, most})]
    if most > 1 and all(scores.get("majority_of_each") for scores in asked):
        measures.append(("majority", most))
    same = before is not None and before["seed"] == after["seed"]
    return [_comparison(before, after, tasks, kind, k, same) for kind, k in measures]


def changes(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The differences as JSON values: task -> measure -> estimate, levels beside, and the mean."""
    tasks: dict[str, Any] = {}
    for measure in comparisons:
        for row in measure.rows:
            told = tasks.setdefault(row.task, {"levels": {}})
            told[measure.name] = _as_json(row.gain)
            for part in measure.levels.get(row.task, ()):
                told["levels"].setdefault(part.level, {})[measure.name] = _as_json(part.gain)
    means = {m.name: _as_json(m.mean.gain) for m in comparisons if m.mean}
    return {"tasks": tasks, "mean": means or None}


def _as_json(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else estimate.as_json()


def _comparison(
    before: Scores | None, after: Scores, tasks: Sequence[str], kind: str, k: int, same: bool
) -> Comparison:
    rows, levels = [], {}
    for task in tasks:
        new = after["tasks"][task]
        old = None if before is None else before["tasks"][task]
        rows.append(_row(task, None, old, new, kind, k, same))
        both = [level for level in new["levels"] if old is None or level in old["levels"]]
        if len(new["levels"]) > 1:
            levels[task] = tuple(
                _row(task, level, old and old["levels"][level], new["levels"][level], kind, k, same)
                for level in sorted(both, key=int)
            )
    chosen = [row for row in rows if row.task in after["skills"]]
    name = f"{'pass' if kind == 'pass' else 'maj'}@{k}"
    return Comparison(name, tuple(rows), levels, _mean(chosen) if len(chosen) > 1 else None)


def _mean(rows: Sequence[Row]) -> Row:
    olds = [row.before for row in rows if row.before is not None]
    gains = [row.gain for row in rows if row.gain is not None]
    after = mean_of_estimates([row.after for row in rows])
    before = mean_of_estimates(olds) if olds else None
    return Row("mean", None, None, before, after, mean_of_estimates(gains) if gains else None)


def _row(
    task: str, level: str | None, old: Scores | None, new: Scores, kind: str, k: int, same: bool
) -> Row:
    shares, tries = _shares(new, kind, k)
    after = mean_of_shares(shares, tries)
    if old is None:
        return Row(task, level, len(shares), None, after, None)
    earlier, tries_before = _shares(old, kind, k)
    before = mean_of_shares(earlier, tries_before)
    if same and len(shares) == len(earlier):
        gain = paired_difference(shares, earlier, min(tries, tries_before))
    else:
        gain = difference(after, before)
    return Row(task, level, len(shares), before, after, gain)


def _shares(scores: Scores, kind: str, k: int) -> tuple[list[float], int]:
    """Each problem's share of right tries of k answers, and how many such tries it had."""
    samples = int(scores["samples"])
    if kind == "majority":
        shares = [float(share) for share in scores["majority_of_each"]]
    else:
        shares = [pass_at_k(samples, right, k) for right in scores["right_of_each"]]
    return shares, max(1, samples // k)
