"""Charts as plain SVG: lines through bucket means, and stacked areas. Same points, same bytes.

A chart is one figure: a caption, a key with the last values, the picture, and for those who do not
see it a description with first, last, lowest and highest value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 520, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 24  # margins around the plot
MOST_BUCKETS = 260
SMOOTHED = 40  # buckets from which on a moving average lies over the means
COLOURS = 6

Points = Sequence[tuple[int, float]]  # (step, value), steps rising


@dataclass(frozen=True)
class Series:
    """One line or layer."""

    label: str
    points: Points

    @property
    def finite(self) -> list[tuple[int, float]]:
        return [(x, y) for x, y in self.points if math.isfinite(y)]


@dataclass(frozen=True)
class Frame:
    """The plot's ranges, and where a point lies in the picture."""

    first: int
    last: int
    low: float
    high: float

    def x(self, step: float) -> float:
        share = (step - self.first) / max(1, self.last - self.first)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def path(self, points: Points) -> str:
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)


def line_chart(name: str, title: str, series: Sequence[Series], from_zero: bool = False) -> str:
    """Lines over steps, or "" where no series has two finite points. name: unique in the page."""
    drawn = [s for s in series if len(s.finite) > 1]
    if not drawn:
        return ""
    means = [_bucket_means(s.finite) for s in drawn]
    values = [y for points in means for _, y in points]
    frame = _frame(drawn, min([*values, 0.0] if from_zero else values), max(values))
    shapes = []
    for colour, points in enumerate(means):
        smooth = _moving_average(points) if len(points) >= SMOOTHED else None
        thin = " faint" if smooth else ""
        shapes.append(
            f'<polyline class="line c{_hue(colour)}{thin}" points="{frame.path(points)}"/>'
        )
        if smooth:
            path = frame.path(smooth)
            shapes.append(f'<polyline class="line c{_hue(colour)}" points="{path}"/>')
    return _figure(name, title, drawn, frame, "".join(shapes))


def area_chart(name: str, title: str, series: Sequence[Series]) -> str:
    """Layers that add up, none below zero; "" where there are fewer than two steps. A layer is 0 at
    a step it has no point for, as a phase that not every step has."""
    tables = [dict(s.finite) for s in series]
    steps = sorted(set().union(*tables))
    if len(steps) < 2:
        return ""
    aligned = [
        Series(s.label, [(step, max(0.0, table.get(step, 0.0))) for step in steps])
        for s, table in zip(series, tables, strict=True)
    ]
    layers = [_bucket_means(s.points) for s in aligned]
    below = [0.0] * len(layers[0])
    edges = [below]
    for layer in layers:
        below = [low + y for low, (_, y) in zip(below, layer, strict=True)]
        edges.append(below)
    frame = _frame(aligned, 0.0, max(edges[-1]))
    xs = [x for x, _ in layers[0]]
    shapes = []
    for colour, (low, high) in enumerate(pairwise(edges)):
        there = list(zip(xs, high, strict=True))
        back = list(zip(reversed(xs), reversed(low), strict=True))
        path = frame.path(there + back)
        shapes.append(f'<polygon class="area c{_hue(colour)}" points="{path}"/>')
    return _figure(name, title, aligned, frame, "".join(shapes))


def number(value: float) -> str:
    """A value for people: four significant digits, thousands apart."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        text = f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
        return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text
    return f"{value:.2e}"


def _figure(name: str, title: str, series: Sequence[Series], frame: Frame, shapes: str) -> str:
    said = "; ".join(f"{s.label}: {_described(s)}" for s in series)
    key = "".join(
        f'<li><svg class="swatch" viewBox="0 0 24 8" aria-hidden="true">'
        f'<path class="line c{_hue(i)}" d="M0 4H24"/></svg>'
        f"{escape(s.label)} <b>{number(s.finite[-1][1])}</b></li>"
        for i, s in enumerate(series)
    )
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><ul class="key">{key}</ul>'
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="{name}-t {name}-d"><title id="{name}-t">{escape(title)}</title>'
        f'<desc id="{name}-d">Steps {frame.first:,} to {frame.last:,}. {escape(said)}.</desc>'
        f"{_axes(frame)}{shapes}</svg></figure>"
    )


def _described(series: Series) -> str:
    values = [y for _, y in series.finite]
    lost = len(series.points) - len(values)
    return (
        f"first {number(values[0])}, last {number(values[-1])}, lowest {number(min(values))}, "
        f"highest {number(max(values))}" + (f", {lost} not finite and left out" if lost else "")
    )


def _axes(frame: Frame) -> str:
    parts = []
    for tick in _ticks(frame.low, frame.high, 4):
        y, label = frame.y(tick), number(tick).replace(".00e", "e")
        parts.append(
            f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        )
    for tick in _ticks(frame.first, frame.last, 5):
        if tick == int(tick):
            parts.append(
                f'<text x="{frame.x(tick):.1f}" y="{HEIGHT - 6}" text-anchor="middle">'
                f"{int(tick):,}</text>"
            )
    return "".join(parts)


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers in a range, 1, 2 or 5 times a power of ten apart."""
    if high <= low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    gap = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / gap - 1e-9), math.floor(high / gap + 1e-9)
    return [round(i * gap, 12) for i in range(first, last + 1)]


def _frame(series: Sequence[Series], low: float, high: float) -> Frame:
    steps = [x for s in series for x, _ in s.finite]
    if high <= low:  # a constant lies in the middle, nothing at the bottom
        low, high = low - abs(low) * 0.1, high + (abs(high) * 0.1 or 1.0)
    return Frame(min(steps), max(steps), low, high + 0.04 * (high - low))


def _bucket_means(points: Points) -> list[tuple[int, float]]:
    """At most MOST_BUCKETS points, each the mean of neighbours, at the step of the first."""
    size = -(-len(points) // MOST_BUCKETS)
    chunks = (points[i : i + size] for i in range(0, len(points), size))
    return [(chunk[0][0], math.fsum(y for _, y in chunk) / len(chunk)) for chunk in chunks]


def _moving_average(points: Points) -> list[tuple[int, float]]:
    """Centred, over about a fifteenth of the points; at both ends over those that there are."""
    reach = max(1, len(points) // 30)
    smooth = []
    for i, (x, _) in enumerate(points):
        window = [y for _, y in points[max(0, i - reach) : i + reach + 1]]
        smooth.append((x, math.fsum(window) / len(window)))
    return smooth


def _hue(index: int) -> int:
    return index % COLOURS
