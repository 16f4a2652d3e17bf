"""Rates and means of shares with intervals, and exact tests of paired yes-or-no outcomes.

Sources: E. B. Wilson (1927) for the interval of a rate; N. Dean and M. Pagano (Journal of Survey
Statistics and Methodology 3, 2015, pages 484 to 503) for Wilson's interval over the effective
number of trials where trials come in clusters; R. G. Newcombe (Statistics in Medicine 17, 1998,
pages 2635 to 2650, method 10) for a difference of paired rates, which G. Y. Zou and A. Donner
(Statistics in Medicine 27, 2008, pages 1693 to 1702) extend to any two estimates with intervals;
A. Agresti and Y. Min (Statistics in Medicine 24, 2005, pages 729 to 740) for the adjusted interval
of a mean of paired differences, here for several trials, too; McNemar's test in its exact form,
which is a binomial test of the pairs that disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Z95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
DIGITS = 4  # of rates and probabilities in a report


@dataclass(frozen=True)
class Rate:
    """`hits` of `n`."""

    hits: int
    n: int

    @property
    def value(self) -> float | None:
        """The share of hits; None where nothing was counted."""
        return self.hits / self.n if self.n else None

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval; all of [0, 1] where nothing was counted."""
        return wilson(self.hits, self.n)

    def as_json(self) -> dict[str, Any]:
        low, high = self.interval()
        value = self.value
        return {
            "hits": self.hits,
            "n": self.n,
            "rate": None if value is None else round(value, DIGITS),
            "interval95": [round(low, DIGITS), round(high, DIGITS)],
        }


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, Any]:
        interval = [round(self.low, DIGITS), round(self.high, DIGITS)]
        return {"value": round(self.value, DIGITS), "interval95": interval}


@dataclass(frozen=True)
class Paired:
    """Yes-or-no outcomes of the same items under two conditions."""

    both: int
    first_only: int
    second_only: int
    neither: int

    @classmethod
    def count(cls, first: Sequence[bool], second: Sequence[bool]) -> Paired:
        """Outcomes of item i under both conditions stand at place i."""
        pairs = list(zip(first, second, strict=True))
        kinds = ((True, True), (True, False), (False, True), (False, False))
        return cls(*(pairs.count(kind) for kind in kinds))

    @property
    def n(self) -> int:
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def first(self) -> Rate:
        return Rate(self.both + self.first_only, self.n)

    @property
    def second(self) -> Rate:
        return Rate(self.both + self.second_only, self.n)

    @property
    def difference(self) -> float | None:
        """Rate of the first condition less that of the second."""
        return (self.first_only - self.second_only) / self.n if self.n else None

    @property
    def p(self) -> float:
        """Exact two-sided McNemar probability; 1 where no pair disagrees."""
        return binomial_p(self.first_only, self.first_only + self.second_only)

    def interval(self) -> tuple[float, float]:
        """Newcombe's 95 % interval of the difference, from Wilson's of both rates."""
        if not self.n:
            return -1.0, 1.0
        first = Estimate(self.first.hits / self.n, *self.first.interval())
        second = Estimate(self.second.hits / self.n, *self.second.interval())
        found = difference(first, second, self._correlation())
        return found.low, found.high

    def _correlation(self) -> float:
        """Newcombe's continuity-corrected correlation of the two outcomes."""
        a, b, c, d = self.both, self.first_only, self.second_only, self.neither
        margins = (a + b) * (c + d) * (a + c) * (b + d)
        if margins == 0:
            return 0.0
        cross = float(a * d - b * c)
        if cross > 0:
            cross = max(cross - self.n / 2, 0.0)
        return cross / math.sqrt(margins)

    def as_json(self) -> dict[str, Any]:
        low, high = self.interval()
        difference = self.difference
        return {
            "n": self.n,
            "first": self.first.as_json(),
            "second": self.second.as_json(),
            "first_only": self.first_only,
            "second_only": self.second_only,
            "difference": None if difference is None else round(difference, DIGITS),
            "difference_interval95": [round(low, DIGITS), round(high, DIGITS)],
            "mcnemar_p": round(self.p, DIGITS),
        }


def wilson(hits: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate; (0, 1) for n = 0. An effective n need not be whole."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = hits / n, Z95 * Z95
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_of_shares(shares: Sequence[float], trials: int = 1) -> Estimate:
    """The mean of independent items' shares in [0, 1], each measured by some trials.

    The items are the independent unit, not the trials: many answers to one question agree with each
    other. So Wilson's interval counts not items * trials but n = p (1 - p) / (v / items) trials, as
    many lone ones as have a mean that varies as much as this one; v is the variance of the shares.
    That is never below the number of items, which it equals for one trial each (Wilson's own
    interval), and is kept at items * trials at most. Shares that are all 0 or all 1 count as one
    trial each.
    """
    items = len(shares)
    if items == 0:
        return Estimate(math.nan, 0.0, 1.0)
    p = math.fsum(shares) / items
    spread, variance = p * (1 - p), math.fsum((x - p) ** 2 for x in shares) / items
    n = float(items)
    if spread > 0.0:
        n *= min(float(trials), spread / variance if variance else math.inf)
    return Estimate(p, *wilson(p * n, n))


def mean_of_estimates(estimates: Sequence[Estimate]) -> Estimate:
    """The plain mean of independent estimates; distances to the limits add as squares (Zou and
    Donner)."""
    n = len(estimates)
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0)
    value = math.fsum(e.value for e in estimates) / n
    below = math.sqrt(math.fsum((e.value - e.low) ** 2 for e in estimates)) / n
    above = math.sqrt(math.fsum((e.high - e.value) ** 2 for e in estimates)) / n
    return Estimate(value, value - below, value + above)


def difference(first: Estimate, second: Estimate, phi: float = 0.0) -> Estimate:
    """first - second, by Zou and Donner. phi: their correlation; 0 for independent ones, which errs
    to the wide side where they rise and fall together."""
    value = first.value - second.value
    below = _side(first.value - first.low, second.high - second.value, phi)
    above = _side(first.high - first.value, second.value - second.low, phi)
    return Estimate(value, value - below, value + above)


def paired_difference(first: Sequence[float], second: Sequence[float], trials: int = 1) -> Estimate:
    """Mean of first - second, of items whose shares in [0, 1] were measured under both conditions.

    The normal approximation of the differences d of n items, to which two more are added that
    cancel: with m = sum(d) / (n + 2) and v = (sum(d^2) + 1 / trials) / (n + 2) - m^2 the limits are
    m -+ z sqrt(v / (n + 2)). For one trial this is Agresti and Min's: half a count more in each
    cell of the table of pairs, so that no disagreement among few items is no certainty. More trials
    an item make the shares, and so what is added, finer. The value is the plain mean.
    """
    d = [x - y for x, y in zip(first, second, strict=True)]
    if not d:
        return Estimate(math.nan, -1.0, 1.0)
    n = len(d) + 2
    middle = math.fsum(d) / n
    variance = (math.fsum(x * x for x in d) + 1 / trials) / n - middle * middle
    half = Z95 * math.sqrt(variance / n)
    value = math.fsum(d) / len(d)
    low, high = max(-1.0, middle - half), min(1.0, middle + half)
    return Estimate(value, min(value, low), max(value, high))


def binomial_p(hits: int, n: int) -> float:
    """Exact two-sided probability of a count so far from n / 2, where both sides are alike."""
    if n == 0:
        return 1.0
    tail = term = 1  # whole numbers: C(n, i), each from the one before
    for i in range(min(hits, n - hits)):
        term = term * (n - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n)


def sign_p(differences: Sequence[float]) -> float:
    """Exact two-sided sign test: is a difference as often above zero as below? Zeros are left
    out."""
    above = sum(d > 0 for d in differences)
    return binomial_p(above, above + sum(d < 0 for d in differences))


def median(values: Sequence[float]) -> float | None:
    """The middle value; None for none."""
    if not values:
        return None
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def _side(own: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, own * own - 2 * phi * own * other + other * other))
