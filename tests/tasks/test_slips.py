"""A check says true things and ends in the answer; a slip is wrong, and mended at once."""

from __future__ import annotations

import random
import re

import pytest

from ingle.tasks import ALL_TASKS, Problem, verify
from ingle.tasks.base import MAX_SEARCH
from ingle.tasks.slips import CHECK, CHECK_SHARE, SLIP_SHARE, WAIT, vary, with_check, with_slip

CHECKED = (
    "sums", "products", "gcd", "countdown", "simple_equations", "lcm", "fraction_simplification",
    "prime_factorization", "time_intervals", "countdown4",
)  # fmt: skip
SLIPPING = (
    *CHECKED, "base_conversion", "letter_counting", "spell_backward", "number_sequence",
    "count_bits", "caesar_cipher", "leg_counting", "calendar_days",
)  # fmt: skip
FACT = re.compile(r"(-?\d+(?:[-+*/]\d+)*)=(-?\d+)(?:b(\d))?(?:r(\d+))?")


def value(expression: str) -> float:
    """What Python makes of a chain of operations on decimal numbers, leading zeros allowed."""
    assert re.fullmatch(r"-?\d+([-+*/]\d+)*", expression)
    return float(eval(re.sub(r"\b0+(?=\d)", "", expression)))


def holds(fact: re.Match[str]) -> bool:
    """Whether `a-b=c`, `a-b-c=dbe` (e borrowed) or `a/b=qrR` is true."""
    expression, result, borrow, rest = fact.groups()
    if rest is not None:
        left, _, right = expression.partition("/")
        return int(left) == int(result) * int(right) + int(rest) and int(rest) < int(right)
    return value(expression) == int(result) - 10 * int(borrow or 0)


def _problems(task: str, count: int = 300) -> list[Problem]:
    rng = random.Random(11)
    levels = ALL_TASKS[task].LEVELS + ALL_TASKS[task].HARDER
    return [ALL_TASKS[task].generate(rng, levels[i % len(levels)]) for i in range(count)]


@pytest.mark.parametrize("task", CHECKED)
def test_checks_are_true_and_end_in_the_answer(task: str) -> None:
    count = 0
    for problem in _problems(task):
        checked = with_check(problem)
        if checked is None:
            continue
        count += 1
        before, _, check = checked.trace.rpartition(f"\n{CHECK}")
        assert before == problem.trace
        facts, _, answer = check.partition(">")
        assert answer == problem.answer == checked.answer
        for fact in facts.split(" "):
            found = FACT.fullmatch(fact)
            assert found is not None and holds(found), (fact, checked)
        assert problem.level in ALL_TASKS[task].HARDER or len(checked.trace) <= MAX_SEARCH
    assert count > 150


@pytest.mark.parametrize("task", [name for name in ALL_TASKS if name not in CHECKED])
def test_other_tasks_have_no_check(task: str) -> None:
    assert all(with_check(problem) is None for problem in _problems(task, 20))


@pytest.mark.parametrize("task", SLIPPING)
def test_slips_are_wrong_and_mended(task: str) -> None:
    rng, count = random.Random(12), 0
    for problem in _problems(task):
        slipped = with_slip(rng, problem)
        if slipped is None:
            continue
        count += 1
        before, _, after = slipped.trace.partition(WAIT)
        slip = re.split(r"\s", before)[-1]
        assert before.removesuffix(slip) + after == problem.trace  # mended: the rest is the same
        step = re.split(r"\s", after)[0]
        assert step != slip and not step.startswith(slip)
        found = FACT.search(slip)
        if found is not None:
            assert not holds(found), slipped
        else:
            assert task in ("letter_counting", "spell_backward")
        assert slipped.answer == problem.answer and verify(slipped, slipped.answer).score == 1.0
        assert problem.level in ALL_TASKS[task].HARDER or len(slipped.trace) <= MAX_SEARCH
    assert count > 200


def test_a_wrong_step_of_each_kind() -> None:
    rng = random.Random(0)
    one = ALL_TASKS["sums"].generate(rng, 1)
    problem = Problem("sums", 1, "", ALL_TASKS["sums"].solve([47, -85]), "-38", one.key, {})
    traces = {with_slip(rng, problem).trace for _ in range(200)}  # type: ignore[union-attr]
    # 85-47: 5-7-0=8b1>8 8-4-1=3b0>38
    assert "47<85\n85-47: 5-7-0=9 wait 5-7-0=8b1>8 8-4-1=3b0>38\n-38" in traces
    assert "47<85\n85-47: 5-7-0=8b1>8 8-4-1=5 wait 8-4-1=3b0>38\n-38" in traces
    assert all(trace.count(WAIT) == 1 for trace in traces)


def test_shares() -> None:
    rng = random.Random(5)
    problems = [ALL_TASKS["gcd"].generate(rng, 2) for _ in range(5000)]
    varied = [vary(rng, problem) for problem in problems]
    checks = sum(CHECK in problem.trace for problem in varied) / 5000
    slips = sum(WAIT in problem.trace for problem in varied) / 5000
    assert abs(checks - CHECK_SHARE) < 0.012 and abs(slips - SLIP_SHARE) < 0.009
    same = sum(one is other for one, other in zip(problems, varied, strict=True)) / 5000
    assert same > 0.9
    again = random.Random(6), random.Random(6)
    assert [vary(again[0], p) for p in problems] == [vary(again[1], p) for p in problems]
