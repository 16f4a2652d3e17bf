"""Scores and their intervals; evaluation problems are never training problems."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

import pytest

from ingle.errors import InvalidRequestError
from ingle.statistics import wilson
from ingle.tasks import ALL_TASKS, Problem, sample, split_of
from ingle.tasks.base import right, wrong
from ingle.training.evaluation import evaluate as module
from ingle.training.evaluation.asking import NOT_ASKED, Answer, Ask, Asking, Question, unboxed
from ingle.training.evaluation.evaluate import (
    Evaluation,
    Exam,
    Outcome,
    Score,
    contamination,
    examine,
    fresh_problems,
    task_exam,
    vote,
)

MANY = Asking(samples=4, temperature=1.0)


def numbers(*gold: int) -> list[Problem]:
    """Problems of a made-up open set."""
    return [
        Problem("set", 1, f"say {g}", "", str(g), f"set:{i}", {"number": g})
        for i, g in enumerate(gold)
    ]


def exam(problems: list[Problem]) -> Exam:
    return Exam(lambda: problems, lambda p, text: right() if text == p.answer else wrong("No."))


def answering(reply: Callable[[str, int], str]) -> tuple[Ask, list[list[Question]]]:
    """An asker whose text is a function of the question and the sample's index; what it saw."""
    seen: list[list[Question]] = []

    def ask(questions: Sequence[Question], asking: Asking) -> list[Answer]:
        seen.append(list(questions))
        k = asking.samples
        return [Answer(reply(q.text, i % k), "hm", 5, "done") for i, q in enumerate(questions)]

    return ask, seen


def scored(*rights: tuple[bool, ...]) -> Score:
    (problem,) = numbers(1)
    return Score([Outcome(problem, each, tuple(str(x) for x in each)) for each in rights])


def test_one_answer_to_each_problem_has_wilsons_interval() -> None:
    score = scored(*[(True,)] * 95, *[(False,)] * 5)
    assert score.rate == 0.95
    assert score.interval() == pytest.approx((0.8882, 0.9785), abs=2e-4)  # Brown et al. 2001
    assert scored(*[(False,)] * 10).interval()[0] == pytest.approx(0.0, abs=1e-9)


def test_many_answers_to_one_problem_are_not_taken_for_many_problems() -> None:
    score = scored(*[(True,) * 16] * 12, *[(False,) * 16] * 8)
    assert score.interval() == pytest.approx(wilson(12, 20))


@pytest.mark.parametrize("task", list(ALL_TASKS))
def test_fresh_problems_are_test_problems_of_every_level(task: str) -> None:
    problems = fresh_problems(task, 30, seed=3)
    assert {split_of(p.key) for p in problems} == {"test"}
    assert {p.level for p in problems} == set(ALL_TASKS[task].LEVELS)
    assert [p.key for p in problems] == [p.key for p in fresh_problems(task, 30, seed=3)]
    assert [p.key for p in problems] != [p.key for p in fresh_problems(task, 30, seed=4)]


def test_contamination_finds_a_question_that_training_could_ask() -> None:
    rng = random.Random("contamination:5")
    leaked = sample(rng, "products", 1, "train")  # the first that the measure itself will draw
    fresh = fresh_problems("products", 3, seed=5, levels=(1,))
    assert contamination([leaked], 5) == 1.0
    assert contamination([leaked, *fresh], 5) < 1.0


def test_only_trained_skills_lift_the_mean() -> None:
    half, whole = scored((True,), (False,)), scored((True,), (True,))
    scores = {"sums": half, "gcd": whole, "chat": whole, "gsm8k": whole}
    found = Evaluation(scores, {}, [], 0.0, 10.0)
    assert found.mean == 0.75
    assert found.as_json()["skills"] == ["sums", "gcd"]
    scores = {"sums": half, "rotate_matrix": whole, "small_talk": whole}
    assert Evaluation(scores, {}, [], 0.0, 10.0).mean == 0.5  # transfer is told apart
    assert Evaluation({"rotate_matrix": whole}, {}, [], 0.0, 10.0).mean == 1.0


def test_samples_give_pass_and_majority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four samples: 7 is said right twice, first; 8 once, last; 9 always."""
    said = {"say 7": "7 7 1 2", "say 8": "3 3 4 8", "say 9": "9 9 9 9"}
    ask, _ = answering(lambda question, i: said[question].split()[i])
    monkeypatch.setattr(module, "ASKED_AT_ONCE", 5)  # one problem of four samples at a time
    found = examine(ask, [exam(numbers(7, 8, 9))], MANY)
    score = found.by_task["set"]
    assert score.passes(1).value == pytest.approx((2 / 4 + 1 / 4 + 1) / 3)
    assert score.passes(2).value == pytest.approx((5 / 6 + 3 / 6 + 1) / 3)
    assert score.passes(4).value == 1.0
    assert score.majority(4).value == pytest.approx(2 / 3)
    assert (score.n, score.samples, score.right) == (3, 4, 7)
    assert [problem.question for problem, _, _ in found.mistakes] == ["say 7", "say 8"]
    assert found.mistakes[0][1] == "hm\n-> 1"
    assert found.contamination is None
    told = json.loads(json.dumps(found.as_json()))
    assert told["tasks"]["set"]["right_of_each"] == [2, 1, 4]
    assert list(told["tasks"]["set"]["pass"]) == ["1", "2", "4"]
    assert told["tasks"]["set"]["levels"]["1"]["majority"]["4"]["value"] == 0.6667


def test_a_seed_belongs_to_its_problem_and_sample_alone() -> None:
    ask, seen = answering(lambda question, i: "?")
    examine(ask, [exam(numbers(1, 2))], MANY)
    examine(ask, [task_exam("sums", 2, 0), exam(numbers(1, 2, 3))], Asking(6, 1.0))
    few, more = seen[0], seen[1][12:]
    assert [few[0], few[4]] == [more[0], more[6]]
    assert few[:4] == more[:4]
    assert len({q.seed for q in more}) == len(more)
    assert all(0 <= q.seed < 2**31 for q in more)


def test_what_was_cut_or_never_asked_is_told_and_wrong() -> None:
    def ask(questions: Sequence[Question], asking: Asking) -> list[Answer]:
        return [Answer("1", "", 10, "done"), Answer("", "1 1 1", 20, "cut"), NOT_ASKED, NOT_ASKED]

    found = examine(ask, [exam(numbers(1, 1, 1, 1))], Asking())
    assert (found.cut, found.too_long, found.mean_tokens) == (0.25, 0.5, 15.0)
    assert found.by_task["set"].rate == 0.25


def test_a_boxed_answer_is_judged_by_what_is_in_the_box() -> None:
    ask, _ = answering(lambda question, i: r"So we get \boxed{12}.")
    assert examine(ask, [exam(numbers(12))], Asking()).by_task["set"].rate == 1.0
    assert unboxed(r"\boxed{1} or \boxed{\frac{1}{2}}!") == r"\frac{1}{2}"
    assert unboxed(r"\boxed{1") is None
    assert unboxed("1") is None


def test_votes_are_numbers_where_the_answer_is_one_and_texts_elsewhere() -> None:
    rng = random.Random(0)
    total, made = sample(rng, "sums", 1, "test"), sample(rng, "countdown", 1, "test")
    assert vote(total, "47 + 85 = 132.") == vote(total, "132") == "132"
    assert vote(total, "") is None
    assert vote(made, "(1+2)*3 = 9.") == vote(made, "( 1 + 2 ) * 3 = 9") != vote(made, "3*3 = 9")
    (word,) = numbers(18)
    assert vote(word, "She has $18.00.") == "18"
    assert vote(word, "no idea") is None


def test_a_constant_answer_is_worth_its_chance() -> None:
    ask, _ = answering(lambda question, i: "3")
    score = examine(ask, [exam(numbers(3, 3, 4, 5))], MANY).by_task["set"]
    assert score.rate == 0.5
    assert score.chance() == pytest.approx((1 + 1 + 2 + 2) / 4 / 3)  # among the other three
    assert scored((True,)).chance() is None
    ask, _ = answering(lambda question, i: question.removeprefix("say "))
    assert examine(ask, [exam(numbers(1, 2, 3))], Asking()).by_task["set"].chance() == 0.0


@pytest.mark.parametrize(
    "fields",
    [{"samples": 0}, {"samples": 2}, {"samples": 2000, "temperature": 1.0}, {"temperature": -1.0},
     {"temperature": float("nan")}, {"max_tokens": 0}],
)  # fmt: skip
def test_an_asking_that_makes_no_sense_is_refused(fields: dict) -> None:
    with pytest.raises(InvalidRequestError):
        Asking(**fields)
