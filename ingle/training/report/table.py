"""The table of a report: accuracy per task before and after a stage, with intervals.

`evaluation.json` holds {"before": ..., "after": ...}, each what `ingle eval --json` printed. Where
both asked the same problems, the interval of the difference takes into account that they rise and
fall together (`ingle.statistics.difference`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ingle.statistics import Estimate, correlation, difference, mean_of_estimates
from ingle.training.evaluation.passes import mean_pass, pass_at_k

Scores = Mapping[str, Any]  # of one task or level, as `Score.as_json` writes it
_BAR_WIDTH, _BAR_HEIGHT = 180, 22


def before_and_after(evaluation: Mapping[str, Any]) -> str:
    """HTML of the tables; LookupError, TypeError or ValueError for what is no evaluation."""
    before, after = evaluation["before"], evaluation["after"]
    tasks = [task for task in after["tasks"] if task in before["tasks"]]
    if not tasks:
        return "<p>The evaluations before and after have no task in common.</p>"
    same = before["seed"] == after["seed"]
    most = min(max(map(int, e["tasks"][task]["pass"])) for e in (before, after) for task in tasks)
    pairs = [(task, before["tasks"][task], after["tasks"][task]) for task in tasks]
    means = [row for row in pairs if row[0] in after["skills"]]
    parts = [_table(f"pass@{k}", pairs, means, k, same) for k in sorted({1, most})]
    levels = [
        (f"{task}, level {level}", old["levels"][level], new["levels"][level])
        for task, old, new in pairs
        for level in new["levels"]
        if level in old["levels"] and len(new["levels"]) > 1
    ]
    if levels:
        table = _table("pass@1 by level", levels, [], 1, same)
        parts.append(f"<details><summary>By level</summary>{table}</details>")
    return f"<p>{_note(before, after, same)}</p>{''.join(parts)}"


def _note(before: Mapping[str, Any], after: Mapping[str, Any], same: bool) -> str:
    asked = after["asked"]
    answers = "one greedy answer" if asked["samples"] == 1 else f"{asked['samples']} answers"
    paired = "the same problems both times" if same else "different problems each time"
    return escape(
        f"Before: {before['model']}. After: {after['model']}. Problems that were never trained, "
        f"{answers} to each at temperature {asked['temperature']:g}, {paired}. In brackets: 95 % "
        "intervals, counted over problems. The bars go from 0 to 100 %: before above, after below."
    )


def _table(
    title: str, pairs: Sequence[tuple[str, Scores, Scores]],
    averaged: Sequence[tuple[str, Scores, Scores]], k: int, same: bool,
) -> str:  # fmt: skip
    rows = {name: (new["n"], *_row(old, new, k, same)) for name, old, new in pairs}
    body = "".join(_html(name, *row) for name, row in rows.items())
    if len(averaged) > 1:
        chosen = [rows[name][1:] for name, _, _ in averaged]
        before, after, gain = (mean_of_estimates(column) for column in zip(*chosen, strict=True))
        body += _html("mean, small talk left out", None, before, after, gain, "mean")
    return (
        f'<div class="wide"><table><caption>{escape(title)}</caption><thead><tr><th scope="col">'
        'task<th scope="col">problems<th scope="col">before<th scope="col">after<th scope="col">'
        f'difference<th scope="col"><span class="unseen">picture</span></thead>{body}</table></div>'
    )


def _row(old: Scores, new: Scores, k: int, same: bool) -> tuple[Estimate, Estimate, Estimate]:
    """Before, after, and after less before, from the problems' numbers of right samples."""
    first, second = _outcomes(old), _outcomes(new)
    before, after = mean_pass(first, k), mean_pass(second, k)
    phi = 0.0
    if same and len(first) == len(second):
        phi = correlation(*([pass_at_k(*each, k) for each in both] for both in (first, second)))
    return before, after, difference(after, before, phi)


def _outcomes(scores: Scores) -> list[tuple[int, int]]:
    return [(scores["samples"], right) for right in scores["right_of_each"]]


def _html(
    name: str, n: int | None, before: Estimate, after: Estimate, gain: Estimate, cls: str = ""
) -> str:
    sure = gain.low > 0 or gain.high < 0
    sign = "" if not sure else "\u25b2 " if gain.value > 0 else "\u25bc "
    kind = "" if not sure else ' class="better"' if gain.value > 0 else ' class="worse"'
    points = f"{sign}{100 * gain.value:+.1f} {_range(gain, '{:+.1f}')}"
    return (
        f'<tr class="{cls}"><th scope="row">{escape(name)}<td>{"" if n is None else f"{n:,}"}'
        f"<td>{100 * before.value:.1f} {_range(before)}<td>{100 * after.value:.1f} {_range(after)}"
        f"<td{kind}>{points}<td>{_bars(before, after)}"
    )


def _range(estimate: Estimate, form: str = "{:.1f}") -> str:
    low, high = form.format(100 * estimate.low), form.format(100 * estimate.high)
    return f"<small>({low} to {high})</small>"


def _bars(before: Estimate, after: Estimate) -> str:
    """Both estimates as points on their intervals; a screen reader has the numbers beside it."""
    marks = "".join(
        f'<path class="line {cls}" d="M{_place(e.low):.1f} {y}H{_place(e.high):.1f}"/>'
        f'<circle class="{cls}" cx="{_place(e.value):.1f}" cy="{y}" r="3.5"/>'
        for e, y, cls in ((before, 7, "old"), (after, 15, "new"))
    )
    grid = "".join(f"M{_place(share):g} 1V21" for share in (0.0, 0.5, 1.0))
    return (
        f'<svg class="bars" viewBox="0 0 {_BAR_WIDTH} {_BAR_HEIGHT}" aria-hidden="true">'
        f'<path class="grid" d="{grid}"/>{marks}</svg>'
    )


def _place(share: float) -> float:
    return 4 + share * (_BAR_WIDTH - 8)
