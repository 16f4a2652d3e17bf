"""Rewards: each part by itself, and verifiers that misbehave."""

from __future__ import annotations

import random
import time

import pytest

from ingle.errors import ConfigError, IngleError
from ingle.tasks import Problem, Verdict, sample
from ingle.training.reinforcement.rewards import RewardWeights, latin_share, length_share, reward

WEIGHTS = RewardWeights()
PROBLEM = sample(random.Random(1), "sums", 1, "train")


def test_parts_by_hand() -> None:
    right = reward(WEIGHTS, PROBLEM, PROBLEM.trace, PROBLEM.answer, 50, 100, 0.2)
    assert right.parts() == {"accuracy": 1.0, "form": 0.1, "length": 0.0, "language": 0.0}
    wrong = reward(WEIGHTS, PROBLEM, PROBLEM.trace, "no", 90, 100, 0.2)
    assert wrong.parts() == pytest.approx(
        {"accuracy": 0.0, "form": 0.1, "length": -0.25, "language": 0.0}
    )
    endless = reward(WEIGHTS, PROBLEM, PROBLEM.trace, None, 100, 100, 0.2)
    assert endless.total == pytest.approx(-0.5)
    assert "did not end" in endless.reason
    assert reward(WEIGHTS, PROBLEM, "a <think> b", "3", 1, 100, 0.2).form == 0.0
    assert reward(WEIGHTS, PROBLEM, "", "  ", 1, 100, 0.2).form == 0.0


def test_length_counts_only_at_the_end_of_the_budget() -> None:
    assert [length_share(n, 100, 0.2) for n in (0, 80, 85, 90, 100)] == pytest.approx(
        [0, 0, 0.25, 0.5, 1]
    )
    assert length_share(100, 100, 0.0) == 0.0


def test_language_is_the_share_of_letters() -> None:
    assert latin_share("abc 12") == 1.0
    assert latin_share("ab 数学") == 0.5
    assert latin_share("12 + 5") == 1.0
    spoken = RewardWeights(language=0.2)
    assert reward(spoken, PROBLEM, "ab", "数学", 5, 100, 0.2).language == pytest.approx(0.1)


def test_form_may_not_be_worth_as_much_as_being_right() -> None:
    with pytest.raises(ConfigError, match="below that for accuracy"):
        RewardWeights(form=0.6, language=0.4)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), "1", None])
def test_a_score_that_is_no_number_stops_training_by_name(score: object) -> None:
    with pytest.raises(IngleError, match=r"verifier of 'sums' returned .* finite number"):
        reward(WEIGHTS, PROBLEM, "", "3", 1, 9, 0.2, lambda *_: Verdict(score, ""))  # type: ignore[arg-type]


def test_a_verifier_that_hangs_is_stopped_by_name() -> None:
    def hang(problem: Problem, answer: str) -> Verdict:
        while True:
            pass

    started = time.perf_counter()
    with pytest.raises(IngleError, match=r"verifier of 'sums' took more than 0.2 s"):
        reward(RewardWeights(seconds=0.2), PROBLEM, "", "3", 1, 9, 0.2, hang)
    assert time.perf_counter() - started < 5
    assert reward(WEIGHTS, PROBLEM, "", PROBLEM.answer, 1, 9, 0.2).accuracy == 1.0


def test_a_verifier_that_fails_is_named() -> None:
    def fail(problem: Problem, answer: str) -> Verdict:
        raise ZeroDivisionError

    with pytest.raises(IngleError, match=r"verifier of 'sums' failed: ZeroDivisionError"):
        reward(WEIGHTS, PROBLEM, "", "3", 1, 9, 0.2, fail)
