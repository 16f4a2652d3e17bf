"""Traces of the newer tasks, line by line: every fact is true and the search is as described."""

from __future__ import annotations

import itertools
import random
import re
from itertools import pairwise

import pytest

from ingle.tasks import ALL_TASKS, verify
from ingle.tasks.arithmetic import evaluate
from ingle.tasks.base import Problem
from ingle.tasks.countdown import NO_WAY, has_way
from ingle.tasks.countdown4 import LONGEST, MAX_DEAD_ENDS, search

FACT = re.compile(r"(?<![\d+*/-])(-?\d+(?:[-+*/]\d+)+)=(?=(-?\d+)(?:r(\d+))?)")  # they may overlap
COUNTED = (
    "simple_equations", "number_sequence", "lcm", "fraction_simplification", "leg_counting",
    "prime_factorization", "count_bits", "caesar_cipher", "time_intervals", "calendar_days",
)  # fmt: skip


def _problems(task: str, count: int = 300) -> list[Problem]:
    rng = random.Random(31)
    levels = ALL_TASKS[task].LEVELS + ALL_TASKS[task].HARDER
    return [ALL_TASKS[task].generate(rng, levels[i % len(levels)]) for i in range(count)]


@pytest.mark.parametrize("task", COUNTED)
def test_facts_are_true_and_the_last_one_is_the_answer(task: str) -> None:
    for problem in _problems(task):
        facts = FACT.findall(problem.trace)
        assert len(facts) == len(re.findall(r"\d[-+*/]\d+(?:[-+*/]\d+)*=", problem.trace)), problem
        for expression, result, rest in facts:
            if rest:
                number, divisor = map(int, expression.split("/"))
                assert number == int(result) * divisor + int(rest) and int(rest) < divisor
                continue
            outcome = evaluate("0" + expression)  # `-5-2` as `0-5-2`
            assert not isinstance(outcome, str)
            assert outcome[0] == int(result), (expression, result)
        if task not in ("caesar_cipher", "time_intervals", "calendar_days", "prime_factorization",
                        "fraction_simplification"):  # fmt: skip
            assert re.findall(r"-?\d+", problem.trace)[-1] == problem.answer


def test_answers_stand_in_the_trace() -> None:
    for problem in _problems("prime_factorization"):
        found = [line.partition(">")[2] for line in problem.trace.split("\n")]
        assert found[-1] == problem.answer.replace(" ", "")
        assert all(long.startswith(f"{short}*") for short, long in pairwise(found))
    for problem in _problems("fraction_simplification"):
        last = problem.trace.split("\n")[-1]
        assert "/".join(re.findall(r"=(\d+)", last)).removesuffix("/1") == problem.answer
    for problem in _problems("time_intervals"):
        assert problem.trace.endswith(f">{problem.answer}")
    for problem in _problems("caesar_cipher"):
        assert "".join(re.findall(r"\d=([a-z])", problem.trace)) == problem.answer
        assert all(
            ord(letter) - 96 == int(number)
            for letter, number in re.findall(r"\b([a-z])=(\d\d)", problem.trace)
        )
    days = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
    for problem in _problems("calendar_days"):
        assert days[int(problem.trace[-1])] == problem.answer
    for problem in _problems("mini_sudoku"):
        assert problem.trace.split("\n")[-1].replace("/", "\n") == problem.answer


def test_words_are_inserted_one_by_one() -> None:
    for problem in _problems("word_sorting"):
        first, *lines = problem.trace.split("\n")
        words = [item.split(":")[1].replace("-", "") for item in first.split(" ")]
        for new, line in enumerate(lines, 1):
            facts, order = re.sub(r"^\d: ", "", line).rsplit(">", 1)
            assert [words[int(n)] for n in order] == sorted(words[: new + 1])
            assert line.startswith(f"{new}: ")
            for one, sign, other in re.findall(r"([a-z.])([<=>])([a-z.])", facts):
                assert sign == ("=" if one == other else "<" if one < other else ">")
            # compared with every word before its place and, where there is one, the one after
            place = order.index(str(new))
            assert len(re.findall("[<>]", facts)) == min(place + 1, new)
        assert ", ".join(words[int(n)] for n in order) == problem.answer


def test_sudoku_cells_list_what_they_can_take() -> None:
    for problem in _problems("mini_sudoku"):
        lines = problem.trace.split("\n")
        for before, facts, after in zip(lines[::2], lines[1::2], lines[2::2], strict=False):
            rows = [list(row) for row in before.split("/")]
            empty = [f"{r + 1}{c + 1}" for r in range(4) for c in range(4) if rows[r][c] == "_"]
            assert [fact[:2] for fact in facts.split(" ")] == empty
            for fact in facts.split(" "):
                r, c = int(fact[0]) - 1, int(fact[1]) - 1
                seen = {*rows[r], *(row[c] for row in rows)}
                seen |= {rows[y][x] for y, x in itertools.product(range(4), range(4))
                         if (y // 2, x // 2) == (r // 2, c // 2)}  # fmt: skip
                around, left = fact[3:].split("=")
                row, column, box = around.split(",")
                assert row == "".join(rows[r]) and column == "".join(line[c] for line in rows)
                assert {*row, *column, *box} == seen and len(box) == 4
                assert left == "".join(d for d in "1234" if d not in seen)
                if len(left) == 1:
                    rows[r][c] = left
            assert "/".join(map("".join, rows)) == after


def test_countdown_with_four_goes_down_and_comes_back() -> None:
    returns = 0
    for problem in _problems("countdown4"):
        if not problem.gold["solvable"]:
            continue
        head, *lines = problem.trace.split("\n")
        target, given = head.split(" from ")
        top = list(map(int, given.split(" ")))
        assert int(target) == problem.gold["target"]
        assert sorted(problem.gold["numbers"]) == sorted(top)
        *lines, built = lines
        assert lines[0].startswith("<") and lines[-1].endswith("!")
        returns += sum(line.startswith("<") for line in lines) > 1
        state = top
        for line in lines:
            assert line.startswith("<") == (":" not in line)
            fact, _, left = line.removeprefix("<").partition(">")
            start = top if ":" not in left else state
            numbers, _, results = left.rstrip("!").partition(": ")
            after = [int(number) for number in numbers.split(" ")]
            made = evaluate(fact.partition("=")[0])
            assert not isinstance(made, str) and made[0] == int(fact.partition("=")[2])
            rest = list(start)
            for used in made[1]:
                rest.remove(used)
            assert after[0] == int(made[0]) and sorted(after[1:]) == sorted(rest)
            if ":" not in left:
                state = after
                continue
            a, b = sorted(after, reverse=True)
            possible = [a + b, a - b, a * b, a / b if b else None]
            found = [int(result) for result in results.split(" ")]
            assert set(found) <= set(possible)
            assert (int(target) in found) == (line is lines[-1] or line == lines[-1])
        said, *steps = built.split("=")
        assert said == target and f"{steps[-1]} = {target}" == problem.answer
        for place, step in enumerate(steps):  # each has one operation more
            value = evaluate(step)
            assert not isinstance(value, str)
            assert value[0] == int(target) and len(value[1]) == place + 2
        assert verify(problem, problem.answer).score == 1.0
    assert 60 < returns < 240  # many searches, not all, come back to the four numbers


def test_countdown_with_four_gives_up_where_there_is_no_way() -> None:
    problems = [p for p in _problems("countdown4", 1200) if not p.gold["solvable"]]
    assert 24 < len(problems) < 80
    for problem in problems:
        numbers, target = problem.gold["numbers"], problem.gold["target"]
        assert not has_way(list(numbers), target)
        *others, last = problem.trace.split("\n")
        ends = [line for line in (*others, last) if ":" in line]
        heads = [line for line in others if line.startswith("<")]
        assert last is ends[-1]
        assert len(set(heads)) == len(heads) or len(set(numbers)) < 4
        assert not any("!" in line or str(target) in line.split()[1:] for line in ends)
        assert len(ends) == MAX_DEAD_ENDS + 1 or len(problem.trace) > LONGEST
        until_before = problem.trace.rpartition(f"\n{ends[-2]}\n")[0]
        assert len(until_before) + 1 + len(ends[-2]) <= LONGEST
        assert problem.answer == NO_WAY
        assert verify(problem, f"{numbers[0]}+{numbers[1]} = {target}").score == 0.0
    solved = next(p for p in _problems("countdown4") if p.gold["solvable"])
    assert verify(solved, NO_WAY).score == 0.0


@pytest.mark.parametrize(
    ("numbers", "target", "found"),
    [([8, 3, 1], 24, True), ([3, 3, 8, 8], 24, True), ([5, 5, 5, 1], 24, True),
     ([3, 7, 3, 7], 24, True), ([1, 3, 4, 6], 24, True), ([2, 2, 2], 10, False),
     ([1, 1, 1, 1], 24, False), ([1, 1, 1, 7], 24, False)],
)  # fmt: skip
def test_whether_there_is_a_way(numbers: list[int], target: int, found: bool) -> None:
    """3, 3, 8, 8 and 5, 5, 5, 1 and 3, 7, 3, 7 need fractions on the way."""
    assert has_way(numbers, target) is found


def test_the_way_of_countdown4_is_not_always_at_the_end_of_a_full_budget() -> None:
    rng = random.Random(1)
    traces = [found[0] for _ in range(500) if (found := search(rng, [6, 3, 8, 5], 100))]
    ends = [sum(":" in line for line in trace.split("\n")) for trace in traces]
    assert min(ends) == 1 and max(ends) >= 8 and len(set(ends)) >= 7


def _holds(said: str) -> bool:
    """Whether a claim is true by its own digits: `b01/c11`, person, claimed role, role."""
    if match := re.fullmatch(r"[a-z](\d)([=#])[a-z](\d)", said):
        return (match[1] == match[3]) == (match[2] == "=")
    first, sign, second = re.fullmatch(r"[a-z](\d\d)(?:([/&>])[a-z](\d\d))?", said).groups()  # type: ignore[union-attr]
    one, two = (pair is not None and pair[0] == pair[1] for pair in (first, second))
    return {None: one, "/": one or two, "&": one and two, ">": not one or two}[sign]


def test_knights_are_searched_case_by_case() -> None:
    for problem in _problems("knights_knaves"):
        first, *lines = problem.trace.split("\n")
        count = len(first.split(" "))
        claims = [said.partition(":")[::2] for said in first.split(" ")]
        cases = list(itertools.product("10", repeat=count))
        for line, roles_of_case in zip(lines, cases, strict=False):
            case, *facts = line.rstrip("!").split(" ")
            roles = dict(zip((name for name, _ in claims), roles_of_case, strict=True))
            assert case == "".join(name + role for name, role in roles.items())
            for fact, (name, claim) in zip(facts, claims, strict=False):
                said, _, true = fact.partition(":")[2].rpartition("=")
                assert fact.startswith(f"{name}{roles[name]}:")
                filled = claim
                for who, role in roles.items():
                    filled = re.sub(rf"({who}\d?)", rf"\g<1>{role}", filled)
                assert said == filled
                assert true == str(int(_holds(said)))
                assert (true == roles[name]) == (line.endswith("!") or fact is not facts[-1])
            assert line.endswith("!") == (line is lines[-1])
            assert not line.endswith("!") or len(facts) == count
        roles = ["knight" if mark == "1" else "knave" for mark in lines[-1][1 : 2 * count : 2]]
        assert re.findall("knight|knave", problem.answer) == roles
