"""Intervals and exact tests against values worked out by hand or long published."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ingle.statistics import (
    Estimate,
    Paired,
    Rate,
    binomial_p,
    difference,
    mean_of_estimates,
    mean_of_shares,
    median,
    paired_difference,
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


def test_one_trial_an_item_is_wilsons_interval():
    for hits, n in [(81, 263), (15, 148), (0, 20), (1, 29), (13, 13)]:
        found = mean_of_shares([1.0] * hits + [0.0] * (n - hits))
        assert (found.low, found.high) == pytest.approx(wilson(hits, n))
        assert found.value == hits / n


def test_items_that_are_all_or_nothing_count_once_however_often_they_are_tried():
    found = mean_of_shares([1.0] * 30 + [0.0] * 20, trials=16)
    assert (found.low, found.high) == pytest.approx(wilson(30, 50))


def test_items_that_are_alike_count_each_trial_and_no_more():
    found = mean_of_shares([0.25] * 50, trials=4)
    assert (found.low, found.high) == pytest.approx(wilson(50, 200))
    assert mean_of_shares([1.0] * 50, trials=4).low == pytest.approx(wilson(50, 50)[0])


def test_the_effective_number_of_trials_by_hand():
    """Shares 0, 1/2, 1, 1: mean 5/8, variance 11/64, so n = 4 (15/64) / (11/64) = 60/11."""
    found = mean_of_shares([0.0, 0.5, 1.0, 1.0], trials=2)
    assert (found.low, found.high) == pytest.approx(wilson(5 / 8 * 60 / 11, 60 / 11))


@pytest.mark.parametrize(("a", "b"), [(4.0, 1.0), (0.5, 0.5), (0.2, 2.0), (30.0, 3.0)])
def test_intervals_of_clustered_trials_hold_the_truth_as_often_as_they_say(a, b):
    """Items whose rates differ (a beta distribution), 60 of them, 8 trials each, drawn 2,000
    times. Wilson's interval over all 480 trials is what this is there to replace."""
    rng = np.random.default_rng(5)
    held = naive = 0
    for _ in range(2000):
        right = rng.binomial(8, rng.beta(a, b, size=60))
        found = mean_of_shares(list(right / 8), trials=8)
        held += found.low <= a / (a + b) <= found.high
        low, high = wilson(int(right.sum()), 480)
        naive += low <= a / (a + b) <= high
    assert 0.93 < held / 2000 < 0.98
    assert naive < held


def test_the_difference_of_independent_rates_as_published():
    """Newcombe 1998, Statistics in Medicine 17:873, table II, method 10."""
    for a, m, b, n, low, high in [
        (56, 70, 48, 80, 0.0524, 0.3339),
        (9, 10, 3, 10, 0.1705, 0.8090),
        (6, 7, 2, 7, 0.0582, 0.8062),
        (5, 56, 0, 29, -0.0381, 0.1926),
    ]:
        one, two = Estimate(a / m, *wilson(a, m)), Estimate(b / n, *wilson(b, n))
        found = difference(one, two)
        assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


def test_what_rises_and_falls_together_has_a_narrower_difference():
    one, two = Estimate(0.6, 0.5, 0.7), Estimate(0.5, 0.4, 0.6)
    alone, together = difference(one, two), difference(one, two, 0.8)
    assert alone.low < together.low < 0.1 < together.high < alone.high
    assert together.high - 0.1 == pytest.approx(math.sqrt(0.01 + 0.01 - 2 * 0.8 * 0.01))


@pytest.mark.parametrize(("b", "c", "n"), [(0, 0, 30), (5, 1, 20), (7, 0, 7), (150, 86, 1600)])
def test_a_paired_difference_of_yes_and_no_has_half_a_count_more_in_each_cell(b, c, n):
    """Agresti and Min 2005: b pairs have the first only, c the second only, n pairs in all."""
    first = [1.0] * b + [0.0] * c + [1.0] * (n - b - c)
    second = [0.0] * b + [1.0] * c + [1.0] * (n - b - c)
    found = paired_difference(first, second)
    p, q = (b + 0.5) / (n + 2), (c + 0.5) / (n + 2)
    half = 1.959964 * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    low, high = max(-1.0, p - q - half), min(1.0, p - q + half)
    assert found.value == pytest.approx((b - c) / n)
    assert (found.low, found.high) == pytest.approx((low, max(high, (b - c) / n)), abs=1e-6)


def test_few_pairs_that_agree_are_no_certainty_and_many_tries_are_more_of_it():
    once, often = (paired_difference([0.5] * 30, [0.5] * 30, tries) for tries in (1, 16))
    assert once.high == -once.low == pytest.approx(1.959964 / 32)
    assert often.high == pytest.approx(once.high / 4)
    nothing = paired_difference([], [])
    assert math.isnan(nothing.value) and (nothing.low, nothing.high) == (-1.0, 1.0)


@pytest.mark.parametrize("tries", [1, 4, 16])
@pytest.mark.parametrize(("a", "b", "more"), [(1.0, 1.0, 0.1), (9.5, 0.5, 0.02), (0.1, 1.9, 0.1)])
def test_intervals_of_paired_differences_hold_the_truth(tries, a, b, more):
    """60 items whose rates differ, before and after, which adds up to `more`: 1,000 times."""
    rng = np.random.default_rng(7)
    before = rng.beta(a, b, size=(1000, 60))
    after = np.clip(before + rng.uniform(0, 2 * more, size=before.shape), 0, 1)
    wide = rng.beta(a, b, size=100_000)
    truth = float((np.clip(wide + rng.uniform(0, 2 * more, size=wide.size), 0, 1) - wide).mean())
    held = 0
    for old, new in zip(rng.binomial(tries, before), rng.binomial(tries, after), strict=True):
        found = paired_difference(list(new / tries), list(old / tries), tries)
        held += found.low <= truth <= found.high
    assert held / 1000 > 0.93


def test_the_mean_of_estimates_by_hand():
    found = mean_of_estimates([Estimate(0.5, 0.4, 0.7), Estimate(0.9, 0.6, 1.0)])
    assert found.value == pytest.approx(0.7)
    assert found.low == pytest.approx(0.7 - math.sqrt(0.1**2 + 0.3**2) / 2)
    assert found.high == pytest.approx(0.7 + math.sqrt(0.2**2 + 0.1**2) / 2)
