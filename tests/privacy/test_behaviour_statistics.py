"""Intervals and exact tests against values worked out by hand or long published."""

from __future__ import annotations

import itertools
import math

import pytest

from ingle.privacy.behaviour.statistics import (
    Paired,
    Rate,
    binomial_p,
    median,
    sign_p,
    wilson,
)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # z2 / (n + z2)
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Statistics in Medicine 17:857, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (0, 13, 0.0, 0.2281),
    ],
)
def test_wilson(hits, n, low, high):
    assert wilson(hits, n) == pytest.approx((low, high), abs=6e-5)


def test_nothing_counted_says_nothing():
    assert Rate(0, 0).value is None
    assert wilson(0, 0) == (0.0, 1.0)
    assert Rate(0, 0).as_json()["rate"] is None
    empty = Paired(0, 0, 0, 0)
    assert (empty.difference, empty.p, empty.interval()) == (None, 1.0, (-1.0, 1.0))


@pytest.mark.parametrize(
    ("hits", "n", "p"),
    [
        (0, 0, 1.0),
        (0, 1, 1.0),
        (0, 5, 2 / 32),
        (0, 6, 2 / 64),
        (1, 8, 2 * 9 / 256),
        (4, 8, 1.0),  # the middle counts once
        (6, 22, 2 * 110056 / 2**22),
        (16, 22, 2 * 110056 / 2**22),
    ],
)
def test_the_binomial_test_is_exact(hits, n, p):
    assert binomial_p(hits, n) == pytest.approx(p, rel=1e-12)


def test_the_binomial_test_agrees_with_counting_every_outcome():
    for n in range(1, 11):
        outcomes = [sum(bits) for bits in itertools.product((0, 1), repeat=n)]
        for hits in range(n + 1):
            far = abs(hits - n / 2)
            counted = sum(abs(x - n / 2) >= far for x in outcomes) / len(outcomes)
            assert binomial_p(hits, n) == pytest.approx(counted)


def test_the_binomial_test_stands_large_counts():
    assert 0.9 < binomial_p(5_000, 10_000) <= 1.0
    assert binomial_p(0, 5_000) == 0.0  # below the smallest double


def test_pairs_are_counted_and_compared():
    first = [True] * 6 + [True] * 4 + [False] * 1 + [False] * 9
    second = [True] * 6 + [False] * 4 + [True] * 1 + [False] * 9
    paired = Paired.count(first, second)
    assert paired == Paired(6, 4, 1, 9)
    assert paired.difference == pytest.approx(3 / 20)
    assert paired.p == pytest.approx(2 * 6 / 32)
    assert (paired.first, paired.second) == (Rate(10, 20), Rate(7, 20))
    low, high = paired.interval()
    assert low < 3 / 20 < high
    with pytest.raises(ValueError):
        Paired.count([True], [])


def test_the_interval_of_a_difference_by_hand():
    """Newcombe's method 10 for 6, 4, 1, 9, step by step."""
    (l1, u1), (l2, u2) = wilson(10, 20), wilson(7, 20)
    cross = max(6 * 9 - 4 * 1 - 10, 0)
    phi = cross / math.sqrt(10 * 10 * 7 * 13)
    below = (0.5 - l1) ** 2 - 2 * phi * (0.5 - l1) * (u2 - 0.35) + (u2 - 0.35) ** 2
    above = (u1 - 0.5) ** 2 - 2 * phi * (u1 - 0.5) * (0.35 - l2) + (0.35 - l2) ** 2
    expected = (0.15 - math.sqrt(below), 0.15 + math.sqrt(above))
    assert Paired(6, 4, 1, 9).interval() == pytest.approx(expected)


def test_turning_a_pair_round_turns_its_interval_round():
    for a, b, c, d in [(6, 4, 1, 9), (0, 5, 0, 20), (10, 0, 0, 0), (3, 3, 3, 3)]:
        low, high = Paired(a, b, c, d).interval()
        again = Paired(a, c, b, d).interval()
        assert again == pytest.approx((-high, -low))
        assert -1 <= low <= (b - c) / (a + b + c + d) <= high <= 1


def test_no_difference_and_no_disagreement_is_p_one():
    assert Paired(3, 0, 0, 7).p == 1.0
    assert Paired(3, 2, 2, 7).p == 1.0


def test_sign_test_and_median():
    assert sign_p([1.0, 2.0, 0.5, 3.0, 0.1, 9.0]) == pytest.approx(2 / 64)
    assert sign_p([0.0, 0.0]) == 1.0
    assert sign_p([-1.0, 1.0, 0.0]) == 1.0
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5
    assert median([]) is None
