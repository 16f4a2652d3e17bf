"""Scores and their intervals; evaluation problems are never training problems."""

from __future__ import annotations

import random

import pytest

from ingle.tasks import TASKS, sample, split_of
from ingle.training.evaluate import Evaluation, Score, contamination, fresh_problems


def test_wilson_intervals_match_published_values() -> None:
    low, high = Score(right=95, n=100).interval()  # Wilson 1927; Brown, Cai, DasGupta 2001
    assert low == pytest.approx(0.8882, abs=2e-4)
    assert high == pytest.approx(0.9785, abs=2e-4)
    assert Score(right=0, n=10).interval()[0] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("task", list(TASKS))
def test_fresh_problems_are_test_problems_of_every_level(task: str) -> None:
    problems = fresh_problems(task, 30, seed=3)
    assert {split_of(p.key) for p in problems} == {"test"}
    assert {p.level for p in problems} == set(TASKS[task].LEVELS)
    assert [p.key for p in problems] == [p.key for p in fresh_problems(task, 30, seed=3)]
    assert [p.key for p in problems] != [p.key for p in fresh_problems(task, 30, seed=4)]


def test_contamination_finds_a_question_that_training_could_ask() -> None:
    rng = random.Random("contamination:5")
    leaked = sample(rng, "products", 1, "train")  # the first that the measure itself will draw
    fresh = fresh_problems("products", 3, seed=5, levels=(1,))
    assert contamination([leaked], 5) == 1.0
    assert contamination([leaked, *fresh], 5) < 1.0


def test_small_talk_does_not_lift_the_mean() -> None:
    scores = {"sums": Score(1, 2), "gcd": Score(2, 2), "chat": Score(2, 2)}
    assert Evaluation(scores, {}, [], 0.0, 10.0).mean == 0.75
