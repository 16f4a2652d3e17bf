"""The tables of a report: accuracy per task and level before and after a stage, with intervals.

Numbers come from `ingle.training.evaluation.comparison`; here they become HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ingle.statistics import Estimate
from ingle.tasks import ALL_TASKS
from ingle.training.evaluation.comparison import Comparison, Row, compare, points

_BAR_WIDTH, _BAR_HEIGHT = 180, 22
MEAN = "mean, small talk left out"


def before_and_after(evaluation: Mapping[str, Any]) -> str:
    """HTML of the tables; LookupError, TypeError, ValueError or AttributeError for what is no
    evaluation."""
    measures = compare(evaluation)
    if not measures:
        return "<p>The evaluations before and after have no task in common.</p>"
    paired = bool(evaluation["before"])
    parts = [_tiles(measures), f"<p>{escape(note(evaluation))}</p>"]
    for measure in measures:
        parts.append(_table(measure.name, [*measure.rows, *_list(measure.mean)], paired))
        levels = [row for rows in measure.levels.values() for row in rows]
        if levels:
            table = _table(f"{measure.name} by level", levels, paired)
            parts.append(
                f"<details><summary>{escape(measure.name)} by level</summary>{table}</details>"
            )
    return "".join(parts)


def note(evaluation: Mapping[str, Any]) -> str:
    """What has to be known to read the numbers, as plain sentences."""
    before, after = evaluation["before"], evaluation["after"]
    asked = after["asked"]
    answers = "one greedy answer" if asked["samples"] == 1 else f"{asked['samples']} answers"
    aloud = "" if asked.get("thinking", True) else ", thinking off"
    seen = f"{answers} to each at temperature {asked['temperature']:g}{aloud}"
    who, pairs, bars = f"Model: {after['model']}.", "", ""
    if before:
        who = f"Before: {before['model']}. After: {after['model']}."
        same = before["seed"] == after["seed"]
        pairs = ", the same problems both times" if same else ", different problems each time"
        bars = ": before above, after below"
    return (
        f"{who} Problems that were never trained, {seen}{pairs}. In brackets: 95 % intervals, "
        f"counted over problems. The bars go from 0 to 100 %{bars}."
    )


def title_of(row: Row) -> str:
    """What people call a row."""
    if row.n is None:
        return MEAN
    title = ALL_TASKS[row.task].TITLE if row.task in ALL_TASKS else row.task
    return title if row.level is None else f"{title}, level {row.level}"


def arrow(gain: Estimate) -> str:
    """An arrow for a difference whose interval leaves zero out."""
    if gain.low <= 0 <= gain.high:
        return ""
    return "\u25b2 " if gain.value > 0 else "\u25bc "


def _list(row: Row | None) -> list[Row]:
    return [] if row is None else [row]


def _tiles(measures: list[Comparison]) -> str:
    """The means at a glance."""
    tiles = ""
    for measure in measures:
        row = measure.mean
        if row is None:
            continue
        shown = f"{points(row.after.value):.1f} %"
        gain = ""
        if row.before is not None and row.gain is not None:
            shown = f"{points(row.before.value):.1f} \u2192 {shown}"
            gain = f"<br><small>{_gain(row.gain)}</small>"
        tiles += f"<div><dt>mean {escape(measure.name)}<dd>{shown}{gain}</div>"
    return f'<dl class="few">{tiles}</dl>' if tiles else ""


def _table(caption: str, rows: list[Row], paired: bool) -> str:
    heads = ["before", "after", "difference (points)"] if paired else ["right (%)"]
    columns = "".join(f'<th scope="col">{head}' for head in ("task", "problems", *heads))
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{columns}'
        '<th scope="col"><span class="unseen">picture</span></thead>'
        f"{''.join(map(_html, rows))}</table></div>"
    )


def _html(row: Row) -> str:
    cells = ""
    if row.before is not None and row.gain is not None:
        worth = "better" if row.gain.value > 0 else "worse"
        kind = f' class="{worth}"' if arrow(row.gain) else ""
        cells = f"<td>{_rate(row.before)}<td>{_rate(row.after)}<td{kind}>{_gain(row.gain)}"
    else:
        cells = f"<td>{_rate(row.after)}"
    problems = "" if row.n is None else f"{row.n:,}"
    cls = "mean" if row.n is None else ""
    return (
        f'<tr class="{cls}"><th scope="row">{escape(title_of(row))}<td>{problems}'
        f"{cells}<td>{_bars(row.before, row.after)}"
    )


def _rate(estimate: Estimate) -> str:
    return f"{points(estimate.value):.1f} {_range(estimate)}"


def _gain(gain: Estimate) -> str:
    return f"{arrow(gain)}{points(gain.value):+.1f} {_range(gain, '{:+.1f}')}"


def _range(estimate: Estimate, form: str = "{:.1f}") -> str:
    low, high = form.format(points(estimate.low)), form.format(points(estimate.high))
    return f"<small>({low} to {high})</small>"


def _bars(before: Estimate | None, after: Estimate) -> str:
    """The estimates as points on their intervals; a screen reader has the numbers beside it."""
    drawn = [(after, 15, "new")] if before else [(after, 11, "new")]
    drawn = ([(before, 7, "old")] if before else []) + drawn
    marks = "".join(
        f'<path class="line {cls}" d="M{_place(e.low):.1f} {y}H{_place(e.high):.1f}"/>'
        f'<circle class="{cls}" cx="{_place(e.value):.1f}" cy="{y}" r="3.5"/>'
        for e, y, cls in drawn
    )
    grid = "".join(f"M{_place(share):g} 1V21" for share in (0.0, 0.5, 1.0))
    return (
        f'<svg class="bars" viewBox="0 0 {_BAR_WIDTH} {_BAR_HEIGHT}" aria-hidden="true">'
        f'<path class="grid" d="{grid}"/>{marks}</svg>'
    )


def _place(share: float) -> float:
    return 4 + share * (_BAR_WIDTH - 8)
