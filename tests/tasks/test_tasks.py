"""Every task: its own answers pass, wrong ones fail, traces are true and short, splits disjoint."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import ALL_TASKS, FIRST, TASKS, examples, sample, split_of, verify
from ingle.tasks.arithmetic import evaluate
from ingle.tasks.base import MAX_TRACE, Problem
from ingle.training.tokenizer import build_tokenizer

SOLVED = [name for name in FIRST if name != "chat"]


def _problems(task: str, count: int, seed: int = 0, harder: bool = False) -> list[Problem]:
    rng = random.Random(seed)
    module = ALL_TASKS[task]
    levels = module.LEVELS + module.HARDER if harder else module.LEVELS
    return [sample(rng, task, levels[index % len(levels)], "train") for index in range(count)]


@pytest.mark.parametrize("task", FIRST)
def test_own_answers_pass_and_others_fail(task: str) -> None:
    rng = random.Random(1)
    for problem in _problems(task, 2000, harder=True):
        assert verify(problem, problem.answer).score == 1.0, problem
        assert verify(problem, f"  {problem.answer} \n").score == 1.0
        wrong = _damage(rng, problem)
        verdict = verify(problem, wrong)
        assert verdict.score == 0.0, (problem, wrong)
        assert verdict.reason.endswith(".")


def _damage(rng: random.Random, problem: Problem) -> str:
    """The answer with one digit or letter replaced, in the target for expressions."""
    answer = problem.answer
    places = [place for place, char in enumerate(answer) if char.isalnum()]
    place = rng.choice(places)
    pool = "0123456789" if answer[place].isdigit() else "qjw"
    # Leading zeros are harmless, so none is put in front.
    while (char := rng.choice(pool)) == answer[place] or (char == "0" and place == places[0]):
        pass
    return answer[:place] + char + answer[place + 1 :]


@pytest.mark.parametrize("task", FIRST)
@pytest.mark.parametrize(
    "text",
    [
        *["", " ", ".", "=", "= =", "no", "-", "()", "((((", "1/0", "9" * 5000, "²", "٣", "\x00"],
        *["0x", "(" * 5000, "1e9", "None", "I found no way", "[1, 2", "75-(12*6) = 4", "a" * 199],
        "\ud800",
    ],
)
def test_no_text_raises(task: str, text: str) -> None:
    problem = _problems(task, 1, seed=5)[0]
    verdict = verify(problem, text)
    assert verdict.score == 0.0 or text == "I found no way"


@pytest.mark.parametrize("task", SOLVED)
def test_traces_are_true_and_reach_the_answer(task: str) -> None:
    for problem in _problems(task, 2000, seed=2, harder=True):
        checks = {
            "sorting": _check_sorting,
            "spell_backward": _check_spelling,
            "letter_counting": _check_counting,
            "countdown": _check_countdown,
            "base_conversion": _check_bases,
        }
        checks.get(task, _check_columns)(problem)


FACT = re.compile(r"(?<![\d+*/-])(\d+(?:[-+*/]\d+)+)=(\d+)(?:b(\d))?(?:r(\d+))?")


def _check_facts(text: str) -> int:
    """Every `a+b=c`, `a-b-c=dbe`, `a/b=qrR` of the text; the number of facts."""
    facts = FACT.findall(text)
    for expression, result, borrow, rest in facts:
        if rest:
            number, base = map(int, expression.split("/"))
            assert number == int(result) * base + int(rest) and int(rest) < base
            continue
        outcome = evaluate(expression)
        assert not isinstance(outcome, str)
        assert outcome[0] == int(result) - 10 * int(borrow or 0), (expression, result, text)
    assert len(facts) == len(re.findall(r"[-+*/]\d+=", text)), text
    return len(facts)


def _check_columns(problem: Problem) -> None:
    assert _check_facts(problem.trace) > 0
    last = re.findall(r"-?\d+", problem.trace)[-1]
    assert last == problem.answer
    for line in problem.trace.split("\n"):
        header = re.fullmatch(r"(\d+[-+*]\d+): .*>(\d+)(?:=(\d+))?", line)
        if header:
            outcome = evaluate(header[1])
            assert not isinstance(outcome, str)
            assert outcome[0] == int(header[2]) == int(header[3] or header[2])


def _check_bases(problem: Problem) -> None:
    lines = problem.trace.split("\n")
    assert _check_facts(problem.trace) >= len(lines) - 1
    if problem.gold["to_base"]:
        assert lines[-1].endswith(f">{problem.answer}")
        base, value = problem.gold["base"], problem.gold["number"]
        for line in lines:  # each line divides the quotient of the one before it
            head = re.match(rf"(\d+)/{base}[:=]", line)
            quotient, rest = (int(n) for n in re.findall(r"(\d+)r(\d+)", line)[-1])
            assert head and int(head[1]) == value == quotient * base + rest
            value = quotient
        assert value == 0
    else:
        assert re.findall(r"\d+", problem.trace)[-1] == problem.answer
        digits = "".join(line[2] for line in lines)
        assert int(digits, problem.gold["base"]) == problem.gold["number"]
        assert [line[0] for line in lines] == [str(i % 10) for i in range(len(lines))]
    assert all(
        int(digit, 16) == int(n) for n, digit in re.findall(r"r(\d+)=([a-f])", problem.trace)
    )
    assert all(int(digit, 16) == int(n) for digit, n in re.findall(r"([a-f])=(\d+)", problem.trace))


def _check_sorting(problem: Problem) -> None:
    first, *lines = problem.trace.split("\n")
    numbers = first.split(",")
    assert len({len(number) for number in numbers}) == 1
    assert sorted(map(int, numbers)) == list(problem.gold["ordered"])
    for count, (line, number) in enumerate(zip(lines, numbers[1:], strict=True), 2):
        assert line == f"{number}>{','.join(sorted(numbers[:count]))}"
    assert ", ".join(str(int(n)) for n in lines[-1].split(">")[1].split(",")) == problem.answer


def _check_spelling(problem: Problem) -> None:
    forward, backward = problem.trace.split("\n")
    assert forward.split(" ")[::-1] == backward.split(" ")
    assert "".join(item[1] for item in forward.split(" ")) == problem.gold["word"]
    assert "".join(item[1] for item in backward.split(" ")) == problem.answer
    indices = [item[0] for item in forward.split(" ")]
    assert indices == [str(index % 10) for index in range(len(indices))]


def _check_counting(problem: Problem) -> None:
    letter, _, items = problem.trace.partition(": ")
    count = 0
    for item in items.split(" "):
        count += item[0] == letter
        assert item[1] == ("+" if item[0] == letter else "-")
        assert item[2:] == str(count)
    assert problem.answer == str(count)


_WAYS = {"+": "({x})+{l}", "-": "({x})-{l}", "~": "{l}-({x})", "*": "({x})*{l}",
         "/": "({x})/{l}", "%": "{l}/({x})"}  # fmt: skip


def _check_countdown(problem: Problem) -> None:
    header, *lines = problem.trace.split("\n")
    target, numbers = header.split(" from ")
    assert int(target) == problem.gold["target"]
    assert tuple(map(int, numbers.split(" "))) == problem.gold["numbers"]
    found = None
    for index, line in zip((2, 1, 0), lines, strict=False):
        others = list(problem.gold["numbers"])
        last = others.pop(index)
        head, *pairs = line.split(" ")
        assert head == f"{last:03d}" and pairs and found is None
        for text in pairs:
            parts = re.fullmatch(r"(\d+[-+*/]\d+)=(\d{3})((?:[-+~*/%]\d{3})+)(!?)", text)
            assert parts is not None, text
            pair, value, needed, mark = parts.groups()
            outcome = evaluate(pair)
            assert not isinstance(outcome, str)
            assert outcome[0] == int(value) and sorted(outcome[1]) == sorted(others)
            for sign, number in re.findall(r"([-+~*/%])(\d{3})", needed):
                made = evaluate(_WAYS[sign].format(x=int(value), l=int(number)))
                assert not isinstance(made, str) and made[0] == int(target), text
                assert (number == head) == (bool(mark) and needed.endswith(sign + number))
                if number == head:
                    found = _WAYS[sign].format(x=pair, l=last)
    assert problem.answer == ("I found no way." if found is None else f"{found} = {target}")
    assert (found is not None) == problem.gold["solvable"]
    assert found is not None or len(lines) == 3
    assert verify(problem, problem.answer).score == 1.0


def test_countdown_tracks_back_in_a_fixed_order() -> None:
    trace, expression = ALL_TASKS["countdown"].solve([75, 6, 12], 3)
    assert expression == "75-(12*6)"
    assert trace == (
        "3 from 75 6 12\n"
        "012 75+6=081-078~084/027 75-6=069-066~072/023 75*6=450-447\n"
        "006 75+12=087-084~090/029 75-12=063-060~066/021 75*12=900-897\n"
        "075 12+6=018-015~021/006%054 12-6=006-003~009/002%018 12*6=072-069~075!"
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    return Tokenizer.load(folder)


@pytest.mark.parametrize("task", FIRST)
def test_trained_traces_fit_the_token_budget(task: str, tokenizer: Tokenizer) -> None:
    lengths = [len(tokenizer.encode(problem.trace)) for problem in _problems(task, 1500, seed=3)]
    assert max(lengths) <= MAX_TRACE
    # Products need a column for every digit of every row; the mean over all tasks is near 60.
    assert sum(lengths) / len(lengths) <= (105 if task in ("products", "countdown") else 75)


@pytest.mark.parametrize("task", FIRST)
def test_same_rng_same_problems(task: str) -> None:
    assert _problems(task, 200, seed=4) == _problems(task, 200, seed=4)
    assert _problems(task, 200, seed=4) != _problems(task, 200, seed=5)


@pytest.mark.parametrize("task", FIRST)
def test_splits_are_disjoint_by_key(task: str) -> None:
    rng = random.Random(6)
    level = ALL_TASKS[task].LEVELS[-1]
    train = {sample(rng, task, level, "train").key for _ in range(300)}
    test = {sample(rng, task, level, "test").key for _ in range(100)}
    assert not train & test
    assert all(split_of(key) == "train" for key in train)
    assert all(split_of(key) == "test" for key in test)


def test_one_key_in_ten_is_test() -> None:
    share = sum(split_of(f"key {index}") == "test" for index in range(5000)) / 5000
    assert 0.08 < share < 0.12


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([40, 5, -3], [40, -3, 5], True),
        ([40, 5], [5, 40], True),
        ([40, -5], [40, 5], False),
    ],
)
def test_sum_keys_ignore_order(one: list[int], other: list[int], same: bool) -> None:
    keys = []
    for terms in (one, other):
        rng = random.Random(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ingle.tasks.sums._draw", lambda *_, terms=terms: terms)
            keys.append(ALL_TASKS["sums"].generate(rng, 1).key)
    assert (keys[0] == keys[1]) is same


@pytest.mark.parametrize("task", SOLVED)
def test_questions_are_varied_ascii(task: str) -> None:
    assert len(set(ALL_TASKS[task].PHRASES)) >= 8
    questions = [problem.question for problem in _problems(task, 1000, seed=7)]
    assert all(question.isascii() and question == question.strip() for question in questions)
    starts = {re.sub(r"[\W\d]+", " ", question) for question in questions}
    assert len(starts) >= 12


def test_bare_forms_are_about_a_quarter() -> None:
    questions = [problem.question for problem in _problems("sums", 2000, seed=8)]
    share = (
        sum(re.fullmatch(r"[\d+ -]+=?\??", question) is not None for question in questions) / 2000
    )
    assert 0.15 < share < 0.4


@pytest.mark.parametrize(
    ("task", "seed", "forms"),
    [
        ("sums", 1, ("{a}", "= {a}", " {a}. ", "x + y = {a}")),
        ("products", 1, ("{a}", "={a}.")),
        ("letter_counting", 1, ("{a}", "{a}.")),
        ("spell_backward", 1, ('"{a}"', "{a}.")),
    ],
)
def test_harmless_variation_is_accepted(task: str, seed: int, forms: tuple[str, ...]) -> None:
    problem = _problems(task, 1, seed)[0]
    for form in forms:
        assert verify(problem, form.format(a=problem.answer)).score == 1.0


def _countdown(solvable: bool = True) -> Problem:
    gold = {"numbers": (75, 6, 12), "target": 3, "solvable": solvable}
    return Problem("countdown", 3, "", "", "", "", gold)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("75-(12*6) = 3", 1.0),
        ("75-12*6", 1.0),
        ("75 - 6 x 12 = 3.", 1.0),
        ("(75)-((6)*12)", 1.0),
        ("75-(12*6) = 4", 0.0),
        ("75-12-6", 0.0),
        ("3", 0.0),
        ("75-(12*6)*1", 0.0),
        ("75-6*12+0", 0.0),
        ("75-(12*6", 0.0),
        ("75/(6-6)", 0.0),
        ("I found no way.", 0.0),
    ],
)
def test_countdown_verdicts(text: str, score: float) -> None:
    assert verify(_countdown(), text).score == score


def test_no_way_is_right_only_where_there_is_none() -> None:
    assert verify(_countdown(solvable=False), "I found no way.").score == 1.0
    problems = _problems("countdown", 1500, seed=9)
    share = sum(not problem.gold["solvable"] for problem in problems) / len(problems)
    assert 0.01 < share < 0.08


def test_bases_accept_prefix_and_case() -> None:
    gold = {"number": 45, "base": 16, "to_base": True}
    problem = Problem("base_conversion", 2, "", "", "2d", "", gold)
    for text, score in (("2D", 1.0), ("0x2d", 1.0), ("= 2d.", 1.0), ("2e", 0.0), ("45", 0.0)):
        assert verify(problem, text).score == score


def test_examples_start_with_countdown_and_cover_every_task() -> None:
    shown = examples()
    assert shown[0] == "Use 75, 6, 12 to make 3."
    assert len(shown) >= len(TASKS) and len(set(shown)) == len(shown)


def test_chat_never_holds_a_problem_of_another_task() -> None:
    bare_sum = re.compile(r"\s*\d+(\s*[-+]\s*\d+)+\s*[=?]*")
    bare_product = re.compile(r"\s*\d+\s*[*x]\s*\d+\s*[=?]*")
    for problem in _problems("chat", 5000, seed=10):
        question = problem.question.lower()
        assert not bare_sum.fullmatch(question) and not bare_product.fullmatch(question), question
        assert not re.fullmatch(r"reverse:? \w+|\w+ (?:backwards?|reversed)", question), question
        assert "gcd of " not in question
