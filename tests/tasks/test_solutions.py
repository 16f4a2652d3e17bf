"""Answers of the newer tasks against computations that share nothing with them."""

from __future__ import annotations

import datetime
import itertools
import math
import random
import re
from fractions import Fraction

import numpy as np
import pytest
from worlds import follows

from ingle.tasks import ALL_TASKS
from ingle.tasks.base import Problem
from ingle.tasks.syllogism import Claim, solve


def _problems(task: str, count: int = 200) -> list[Problem]:
    rng = random.Random(21)
    levels = ALL_TASKS[task].LEVELS + ALL_TASKS[task].HARDER
    return [ALL_TASKS[task].generate(rng, levels[i % len(levels)]) for i in range(count)]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def test_equations_hold_for_the_answer_and_the_written_sides() -> None:
    for problem in _problems("simple_equations"):
        first = problem.trace.split("\n")[0]
        unknown = re.search(r"[a-z]", first)
        assert unknown is not None
        left, right = (
            eval(re.sub(rf"(\d?){unknown[0]}", lambda m: f"{m[1]}*v" if m[1] else "v", side),
                 {"v": int(problem.answer)})
            for side in first.split("=")
        )  # fmt: skip
        assert left == right
        # the same numbers as in the question, whatever its order and spaces
        assert sorted(_numbers(first)) == sorted(_numbers(problem.question))


def test_sequences_by_their_own_rules() -> None:
    for problem in _problems("number_sequence"):
        numbers = [int(n) for n in problem.key.partition(":")[2].split(",")]
        whole = [*numbers, int(problem.answer)]
        steps = np.diff(whole)
        rules = {
            "-": len(set(steps)) == 1,
            "/": all(n and Fraction(m, n) == Fraction(whole[1], whole[0])
                     for n, m in itertools.pairwise(whole)),
            "+": all(a + b == c for a, b, c in zip(whole, whole[1:], whole[2:], strict=False)),
            "--": len(set(np.diff(steps))) == 1,
            ":": all(len(set(np.diff(whole[start::2]))) == 1 for start in (0, 1)),
        }  # fmt: skip
        sums = re.findall(r"(\d+)\+(\d+)=(\d+):(\d+)", problem.trace)
        assert bool(sums) == ("\n+:" in problem.trace)
        for (first, second, made, there), three in zip(
            sums, zip(numbers, numbers[1:], numbers[2:], strict=False), strict=False
        ):
            assert (int(first), int(second), int(there)) == three and int(made) == sum(three[:2])
        tried = [line.split(": ")[0] for line in problem.trace.split("\n") if ": " in line]
        assert rules[tried[-1]], problem
        shown = {  # a rule given up does not hold for the numbers of the question
            "-": len(set(np.diff(numbers))) == 1,
            "--": len(set(np.diff(numbers, 2))) == 1,
            "+": all(
                a + b == c for a, b, c in zip(numbers, numbers[1:], numbers[2:], strict=False)
            ),
        }
        assert not any(shown.get(rule, False) for rule in tried[:-1])


def test_sequences_start_as_people_ask_them() -> None:
    """Growing differences from low numbers, not only from what sums never reach."""
    rng = random.Random(0)
    drawn = [ALL_TASKS["number_sequence"].generate(rng, 3) for _ in range(1500)]
    growing = [p for p in drawn if "\n--:" in p.trace]
    low = [p for p in growing if int(p.key.partition(":")[2].split(",")[0]) < 10]
    assert 0.4 < len(low) / len(growing) < 0.8


def test_number_theory() -> None:
    for problem in _problems("lcm"):
        assert int(problem.answer) == math.lcm(*_numbers(problem.question)[:2])
    for problem in _problems("fraction_simplification"):
        top, bottom = _numbers(problem.question)
        assert problem.answer == str(Fraction(top, bottom))
    for problem in _problems("prime_factorization"):
        factors = _numbers(problem.answer)
        assert math.prod(factors) == _numbers(problem.question)[0]
        assert all(factor % n for factor in factors for n in range(2, factor))
    for problem in _problems("count_bits"):
        number = max(_numbers(problem.question))
        assert int(problem.answer) == bin(number).count("1")


def test_words() -> None:
    for problem in _problems("word_sorting"):
        words = problem.answer.split(", ")
        assert words == sorted(words)
        assert all(word in problem.question.lower() for word in words)
    table = "abcdefghijklmnopqrstuvwxyz"
    for problem in _problems("caesar_cipher"):
        word, shift, way = problem.key.split(":")[1:]
        turned = table[int(shift) :] + table[: int(shift)]
        moved = word.translate(str.maketrans(table, turned))
        given, answer = (word, moved) if way == "to" else (moved, word)
        assert problem.answer == answer and given in problem.question.lower()
        assert shift in problem.question


def test_sudokus_have_one_solution() -> None:
    rows = ["".join(row) for row in itertools.permutations("1234")]
    bands = [
        one + two
        for one, two in itertools.product(rows, rows)
        if len({*one[:2], *two[:2]}) == len({*one[2:], *two[2:]}) == 4
    ]
    grids = [
        upper + lower
        for upper, lower in itertools.product(bands, bands)
        if all(len(set((upper + lower)[column::4])) == 4 for column in range(4))
    ]
    assert len(grids) == 288
    for problem in _problems("mini_sudoku", 300):
        puzzle = problem.key.partition(":")[2].replace("/", "")
        fits = [
            grid for grid in grids
            if all(p in ("_", d) for p, d in zip(puzzle, grid, strict=True))
        ]  # fmt: skip
        assert fits == [problem.answer.replace("\n", "")]


def test_mazes_by_relaxation() -> None:
    for problem in _problems("maze"):
        rows = problem.key.partition(":")[2].split("/")
        cells = {(r, c): rows[r][c] for r in range(len(rows)) for c in range(len(rows))}
        far = {place: 0 if mark == "S" else 99 for place, mark in cells.items() if mark != "#"}
        for _ in far:
            for r, c in far:
                beside = [far.get(p, 99) for p in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1))]
                far[r, c] = min(far[r, c], 1 + min(beside))
        goal = next(place for place, mark in cells.items() if mark == "G")
        steps = far[goal]
        assert problem.answer == (str(steps) if steps < 99 else "There is no path.")
        first, *lines = problem.trace.split("\n")
        named = [re.findall(r"(\d)(\d)([SG.#])", row) for row in first.split("/")]
        assert {(int(r) - 1, int(c) - 1): mark for row in named for r, c, mark in row} == cells
        seen = {place for place, mark in cells.items() if mark == "S"}
        for line in lines[: -1 if steps == 99 else None]:
            frontier, _, looks = line.partition(">")
            distance, _, places = frontier.partition(":")
            wanted = places.split(" ")
            assert all(far[_place(name)] == int(distance) for name in wanted)
            assert re.findall(r"(\d\d):", looks) == wanted[: looks.count(":")]
            for look in looks.split(" "):
                name, _, around = look.partition(":")
                for other, mark in re.findall(r"(\d\d)([-.#G])", around):
                    (r, c), (y, x) = _place(name), _place(other)
                    assert abs(r - y) + abs(c - x) == 1
                    assert mark == ("-" if (y, x) in seen else cells[y, x])
                    seen |= {(y, x)} if mark in ".G" else set()
        assert lines[-1].endswith(f"G!{steps}" if steps < 99 else ":no")


def _place(name: str) -> tuple[int, int]:
    return int(name[0]) - 1, int(name[1]) - 1


def test_syllogisms_by_counterexample() -> None:
    forms = {"all (\\w+) are (\\w+)": "A", "no (\\w+) are (\\w+)": "E",
             "some (\\w+) are not (\\w+)": "O", "some (\\w+) are (?!not)(\\w+)": "I"}  # fmt: skip
    for problem in _problems("syllogism", 100):
        text = problem.question.lower()
        claims = sorted(
            (match.start(), Claim(kind, match[1], match[2]))
            for form, kind in forms.items()
            for match in re.finditer(form, text)
        )
        *premises, conclusion = (claim for _, claim in claims)
        assert problem.answer == ("yes" if follows(premises, conclusion) else "no"), text


def test_the_fifteen_valid_moods() -> None:
    """Without existential import fifteen of the 256 forms of a syllogism are valid."""
    valid = 0
    for figure in itertools.product((False, True), repeat=2):
        for first, second, last in itertools.product("AEIO", repeat=3):
            major = ("m", "p") if not figure[0] else ("p", "m")
            minor = ("s", "m") if not figure[1] else ("m", "s")
            solved = solve([Claim(first, *major), Claim(second, *minor)], Claim(last, "s", "p"))
            valid += solved is not None and solved[1]
    assert valid == 15


def test_knights_from_the_words_of_the_question() -> None:
    for problem in _problems("knights_knaves", 300):
        (who,) = _who_fits(problem.question)
        spoken = [f"{n} is a {'knight' if r else 'knave'}" for n, r in who.items()]
        assert problem.answer == ", ".join(spoken) + "."


def test_the_puzzles_offered_to_people_have_one_solution() -> None:
    assert all(len(_who_fits(text)) == 1 for text in ALL_TASKS["knights_knaves"].EXAMPLES)
    for task in ("countdown", "countdown4"):
        for text in ALL_TASKS[task].EXAMPLES:
            target, numbers = _target_and_numbers(text)
            assert _makes(list(map(Fraction, numbers)), target), text


@pytest.mark.parametrize("task", ["countdown", "countdown4"])
def test_countdown_knows_where_there_is_a_way(task: str) -> None:
    for problem in _problems(task, 400):
        numbers = list(map(Fraction, problem.gold["numbers"]))
        assert _makes(numbers, problem.gold["target"]) is problem.gold["solvable"], problem


def _target_and_numbers(text: str) -> tuple[int, list[int]]:
    """Of `Use 1, 2 to make 3.` and `make 3 from 1, 2`."""
    numbers = _numbers(text)
    return (numbers[0], numbers[1:]) if text.startswith("make") else (numbers[-1], numbers[:-1])


def _makes(numbers: list[Fraction], target: int) -> bool:
    if len(numbers) == 1:
        return numbers[0] == target
    for i, j in itertools.permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = [n for place, n in enumerate(numbers) if place not in (i, j)]
        for made in (a + b, a - b, a * b, *([a / b] if b else [])):
            if _makes([*rest, made], target):
                return True
    return False


def _who_fits(question: str) -> list[dict[str, bool]]:
    """Everyone's role in every case in which knights speak the truth and knaves do not."""
    head = r"^.*?knaves?( always)? lie\.|^.*?or knaves\.|^.*?knaves: ?"
    text = re.sub(head, "", question, count=1)
    said = re.findall(r"(\w+) says (.+?)\.(?= |$)", text.rstrip(".") + ".", re.IGNORECASE)
    names = [name.capitalize() for name, _ in said]
    fits = []
    for roles in itertools.product((True, False), repeat=len(names)):
        who = dict(zip(names, roles, strict=True))
        if all(_true(claim, who) == who[name.capitalize()] for name, claim in said):
            fits.append(who)
    return fits


def _true(claim: str, who: dict[str, bool]) -> bool:
    same = re.fullmatch(r"(\w+) and (\w+) are (not )?the same", claim)
    if same is not None:
        return (who[same[1]] == who[same[2]]) != bool(same[3])
    implied = re.fullmatch(r"if (.+) then (.+)", claim)
    if implied is not None:
        return not _true(implied[1], who) or _true(implied[2], who)
    parts = re.split(r" (and|or) ", claim)
    truths = [who[p.split()[0]] == p.endswith("knight") for p in parts[::2]]
    return all(truths) if "and" in parts else any(truths)


def test_language() -> None:
    legs = {"cow": 4, "dog": 4, "cat": 4, "pig": 4, "hen": 2, "duck": 2, "ant": 6, "bee": 6,
            "spider": 8, "crab": 10}  # fmt: skip
    for problem in _problems("leg_counting"):
        herd = re.findall(r"(\d+) ([a-z]+?)s?\b", problem.question)
        assert int(problem.answer) == sum(int(count) * legs[animal] for count, animal in herd)
    for problem in _problems("time_intervals"):
        one, two = (
            datetime.timedelta(
                **dict(zip(("hours", "minutes", "seconds"), _numbers(clock), strict=False))
            )
            for clock in re.findall(r"\d+:\d+(?::\d+)?", problem.question)
        )
        between = two - one if two >= one else two - one + datetime.timedelta(days=1)
        shown = str(between)
        assert problem.answer == (shown if problem.answer.count(":") == 2 else shown[:-3])
    for problem in _problems("calendar_days"):
        day = re.search(r"\b(mon|tues|wednes|thurs|fri|satur|sun)day\b", problem.question, re.I)
        assert day is not None
        date = datetime.date(2024, 1, 1)
        while date.strftime("%A").lower() != day[0].lower():
            date += datetime.timedelta(days=1)
        earlier = re.search(r"ago|before|- \d", problem.question)
        days = _numbers(problem.question)[0] * (-1 if earlier else 1)
        assert problem.answer == (date + datetime.timedelta(days=days)).strftime("%A")


@pytest.mark.parametrize("level", [1, 2])
def test_fewest_swaps_by_breadth_first_search(level: int) -> None:
    rng = random.Random(4)
    for _ in range(40):
        problem = ALL_TASKS["binary_alternation"].generate(rng, level)
        start = problem.key.partition(":")[2]
        seen, frontier, steps = {start}, {start}, 0
        while frontier and not any("00" not in s and "11" not in s for s in frontier):
            frontier = {
                s[:i] + s[j] + s[i + 1 : j] + s[i] + s[j + 1 :]
                for s in frontier for i in range(len(s)) for j in range(i + 1, len(s))
            } - seen  # fmt: skip
            seen |= frontier
            steps += 1
        assert problem.answer == (str(steps) if frontier else "-1")


def test_other_transfer_answers() -> None:
    for problem in _problems("isomorphic_strings"):
        one, two = problem.key.partition(":")[2].split(",")
        pattern = [[text.index(letter) for letter in text] for text in (one, two)]
        assert problem.answer == ("yes" if pattern[0] == pattern[1] else "no")
    for problem in _problems("course_schedule", 60):
        count = int(problem.key.split(":")[1])
        if count > 7:
            continue
        rules = [tuple(map(int, rule.split("<"))) for rule in problem.key.split(":")[2].split(",")]
        possible = any(
            all(order.index(a) < order.index(b) for a, b in rules)
            for order in itertools.permutations(range(count))
        )
        assert problem.answer == ("yes" if possible else "no")
    for problem in _problems("rotate_matrix"):
        rows, quarters = problem.key.split(":")[1:]
        matrix = np.array([list(map(int, row)) for row in rows.split("/")])
        turned = np.rot90(matrix, -int(quarters))
        assert problem.answer == "/".join("".join(map(str, row)) for row in turned)
