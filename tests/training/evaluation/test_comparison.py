"""Two evaluations side by side: the numbers of both, and differences of the same problems."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingle.statistics import mean_of_estimates, mean_of_shares, paired_difference, wilson
from ingle.training.evaluation.comparison import Row, changes, compare, points


def scores(right: list[int], samples: int, **more: Any) -> dict[str, Any]:
    """What `Score.as_json` tells as far as a comparison reads it."""
    tries = [1 << i for i in range(samples.bit_length())]
    found = {"n": len(right), "samples": samples, "right_of_each": right}
    return found | {"pass": {str(k): {} for k in tries}, "levels": {}} | more


def evaluation(tasks: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    return {"seed": seed, "skills": [t for t in tasks if t != "chat"], "tasks": tasks}


def test_each_problem_is_compared_with_itself() -> None:
    old, new = [0, 0, 1, 1, 0, 1], [1, 0, 1, 1, 1, 1]
    before, after = (evaluation({"sums": scores(each, 1)}) for each in (old, new))
    (found,) = compare({"before": before, "after": after})
    (row,) = found.rows
    assert found.name == "pass@1" and found.mean is None and row.n == 6
    assert (row.before.low, row.before.high) == pytest.approx(wilson(3, 6))
    assert row.gain == paired_difference(new, old)
    (other,) = compare({"before": before | {"seed": 9}, "after": after})
    assert other.rows[0].gain.high - other.rows[0].gain.low > row.gain.high - row.gain.low


def test_several_answers_have_pass_k_and_maj_k() -> None:
    old = scores([4, 2, 0], 4, majority_of_each=[1.0, 0.0, 0.0])
    new = scores([4, 3, 1], 4, majority_of_each=[1.0, 1.0, 0.0])
    one, four, vote = compare(
        {"before": evaluation({"sums": old}), "after": evaluation({"sums": new})}
    )
    assert [m.name for m in (one, four, vote)] == ["pass@1", "pass@4", "maj@4"]
    assert one.rows[0].gain == paired_difference([1, 0.75, 0.25], [1, 0.5, 0], 4)
    assert one.rows[0].after == mean_of_shares([1, 0.75, 0.25], 4)
    assert four.rows[0].before.value == pytest.approx(2 / 3)
    assert four.rows[0].gain == paired_difference([1, 1, 1], [1, 1, 0])
    assert vote.rows[0].gain == paired_difference([1, 1, 0], [1, 0, 0])


def test_the_k_is_one_that_both_have() -> None:
    found = compare({
        "before": evaluation({"sums": scores([1, 2], 2, majority_of_each=[0.5, 1.0])}),
        "after": evaluation({"sums": scores([1, 0], 1)}),
    })  # fmt: skip
    assert [m.name for m in found] == ["pass@1"]


def test_levels_the_mean_and_what_counts_in_it() -> None:
    parts = {"1": scores([1, 1], 1), "2": scores([1, 0], 1)}
    tasks = {
        "sums": scores([1, 1, 1, 0], 1, levels=parts), "gcd": scores([0, 0], 1),
        "chat": scores([1, 1], 1),
    }  # fmt: skip
    before = evaluation({"sums": scores([0] * 4, 1, levels=parts), "chat": scores([1, 1], 1),
                         "gcd": scores([0, 1], 1)})  # fmt: skip
    (found,) = compare({"before": before, "after": evaluation(tasks)})
    assert [row.task for row in found.rows] == ["sums", "gcd", "chat"]
    assert [(row.level, row.n) for row in found.levels["sums"]] == [("1", 2), ("2", 2)]
    assert found.mean is not None and found.mean.gain is not None
    assert found.mean.gain == mean_of_estimates([row.gain for row in found.rows[:2]])
    assert [line.level for line in found.lines] == [None, "1", "2", None, None, None]
    told = json.loads(json.dumps(changes([found])))
    assert told["tasks"]["sums"]["pass@1"]["value"] == 0.75
    assert told["tasks"]["sums"]["levels"]["2"]["pass@1"]["value"] == 0.0
    assert told["mean"]["pass@1"]["value"] == pytest.approx(0.125)


def test_a_model_without_a_parent_has_no_change() -> None:
    (found,) = compare({"before": None, "after": evaluation({"sums": scores([1, 0], 1)})})
    assert found.rows == (Row("sums", None, 2, None, mean_of_shares([1, 0]), None),)
    assert changes([found])["tasks"] == {"sums": {"levels": {}, "pass@1": None}}


def test_only_tasks_that_both_were_asked_are_compared() -> None:
    sums, gcd = evaluation({"sums": scores([1], 1)}), evaluation({"gcd": scores([1], 1)})
    assert compare({"before": sums, "after": gcd}) == []


def test_zeros_have_no_sign() -> None:
    assert f"{points(-1e-9):+.1f}" == "+0.0" and points(0.12345) == 12.3
