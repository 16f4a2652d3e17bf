"""pass@k and maj@k against counting every choice of k samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ingle.statistics import wilson
from ingle.training.evaluation.passes import (
    maj_at_k,
    majority,
    mean_majority,
    mean_pass,
    numbers_of_tries,
    pass_at_k,
)


def test_pass_at_k_counts_every_choice_of_k_samples() -> None:
    for samples in range(1, 8):
        for right in range(samples + 1):
            outcomes = [i < right for i in range(samples)]
            for k in range(1, samples + 1):
                drawn = [any(some) for some in itertools.combinations(outcomes, k)]
                assert pass_at_k(samples, right, k) == pytest.approx(sum(drawn) / len(drawn))


@pytest.mark.parametrize(("samples", "right", "k"), [(200, 3, 64), (1024, 1, 512), (100, 99, 1)])
def test_pass_at_k_is_the_papers_own_code(samples: int, right: int, k: int) -> None:
    """Chen et al. 2021, figure 3."""
    theirs = 1.0 - np.prod(1.0 - k / np.arange(samples - right + 1, samples + 1))
    if samples - right < k:
        theirs = 1.0
    assert pass_at_k(samples, right, k) == pytest.approx(theirs)


@pytest.mark.parametrize(("samples", "right", "k"), [(4, 2, 0), (4, 2, 5), (4, 5, 1), (4, -1, 1)])
def test_what_is_not_defined_is_refused(samples: int, right: int, k: int) -> None:
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(samples, right, k)


def test_the_k_are_powers_of_two_up_to_the_samples() -> None:
    assert numbers_of_tries(1) == (1,)
    assert numbers_of_tries(6) == (1, 2, 4)
    assert numbers_of_tries(16) == (1, 2, 4, 8, 16)


def test_the_majority_and_its_ties() -> None:
    assert majority(["7", "8", "8"]) == 1
    assert majority(["7", "8", "8", "7"]) == 0  # as many: the one that came first
    assert majority([None, None, "8"]) == 2  # silence has no vote
    assert majority([None, "9", "8", "8", None]) == 2
    assert majority([None]) is None


def test_maj_at_k_is_a_mean_over_blocks() -> None:
    votes = ["7", "8", "8", "8", "7", "7", "8", None]
    right = [vote == "8" for vote in votes]
    assert maj_at_k(votes, right, 1) == pytest.approx(4 / 8)  # pass@1
    assert maj_at_k(votes, right, 2) == pytest.approx(2 / 4)  # 7 first, 8, 7, 8
    assert maj_at_k(votes, right, 4) == pytest.approx(1 / 2)  # 8, 7
    assert maj_at_k(votes, right, 3) == pytest.approx(1 / 2)  # the last two are left over
    assert maj_at_k([None, None], [False, False], 2) == 0.0


def test_a_majority_of_two_is_worth_one_answer_on_average() -> None:
    """Of two that differ the first wins, so maj@2 estimates what pass@1 does: no tie rule lifts
    it."""
    rng = np.random.default_rng(3)
    outcomes = (rng.random((4000, 2)) < 0.3).tolist()
    found = np.mean([maj_at_k([str(x) for x in pair], pair, 2) for pair in outcomes])
    assert found == pytest.approx(np.mean(outcomes), abs=0.02)


def test_intervals_count_problems_and_separate_tries() -> None:
    once = mean_pass([(1, 1)] * 7 + [(1, 0)] * 3, 1)
    assert (once.low, once.high) == pytest.approx(wilson(7, 10))
    alike = [(8, 4)] * 10  # every problem half right: 80 tries for pass@1, 20 pairs for pass@2
    one, four = mean_pass(alike, 1), mean_pass(alike, 4)
    assert (one.low, one.high) == pytest.approx(wilson(40, 80))
    assert (four.low, four.high) == pytest.approx(wilson(20 * (1 - 1 / 70), 20))
    votes, right = [["1", "1"]] * 6 + [["2", "2"]] * 4, [[True, True]] * 6 + [[False, False]] * 4
    both = mean_majority(votes, right, 2)
    assert (both.low, both.high) == pytest.approx(wilson(6, 10))
