"""Rates with intervals, and exact tests of paired yes-or-no outcomes.

Sources: E. B. Wilson (1927) for the interval of a rate; R. G. Newcombe (Statistics in Medicine 17,
1998, pages 2635 to 2650, method 10) for that of a difference of paired rates; McNemar's test in its
exact form, which is a binomial test of the pairs that disagree.
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
        one, two = self.first.hits / self.n, self.second.hits / self.n
        (low_1, high_1), (low_2, high_2) = self.first.interval(), self.second.interval()
        phi = self._correlation()
        below = _side(one - low_1, high_2 - two, phi)
        above = _side(high_1 - one, two - low_2, phi)
        return one - two - below, one - two + above

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


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate; (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = hits / n, Z95 * Z95
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


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
