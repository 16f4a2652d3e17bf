"""Word problems that others published, read from files the user has; only to evaluate on.

Two shapes are known, each as JSON lines or as one JSON list:

    {"question": "...", "answer": "working\\n#### 18"}              GSM8K (arXiv 2110.14168)
    {"Body": "...", "Question": "...", "Answer": 3.0, ...}         SVAMP (arXiv 2103.07191)

An answer is right if its final number equals the gold number exactly. The final number is the last
one behind the last `####`, else the last one of the text: the usual reading, generous to a model
that was never told how to answer. It also takes any text that ends in a number for an answer, which
is why results say beside it what chance makes of the same answers (`Score.chance`).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from ingle.errors import IngleError
from ingle.tasks import Problem, Verdict
from ingle.tasks.base import right, wrong

_LONGEST_NUMBER = 40  # digits; more is a model that repeats itself
# 1,234.5 and 1234.5, with a minus that is no subtraction: nothing it could take away from before it
_NUMBER = re.compile(r"(?:(?<![\w.)\]}])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")


class OpenSetError(IngleError):
    """A file of problems that cannot be read; the message says which line and why."""

    code = "invalid_problem_set"


def read_open_set(name: str, path: Path, n: int, seed: int) -> list[Problem]:
    """n problems of a file drawn by the seed, or all in their order if it has no more than n.

    name: what the set is called in results. Raises OpenSetError.
    """
    problems = [_problem(name, number, row) for number, row in enumerate(_rows(path), 1)]
    if not problems:
        raise OpenSetError(f"{path} holds no problem.")
    if n >= len(problems):
        return problems
    return random.Random(f"open set:{seed}:{name}").sample(problems, n)


def judge(problem: Problem, text: str) -> Verdict:
    """Compare the final number of an answer with the gold one."""
    found = final_number(text)
    if found is None:
        return wrong("The answer has no number.")
    gold = problem.gold["number"]
    return right() if found == gold else wrong(f"{_shown(found)} is not {_shown(gold)}.")


def final_number(text: str) -> Fraction | None:
    """The number an answer ends in; None where there is none, or one of absurd length."""
    text = text.replace("\u2212", "-").replace("$", "").replace("\\!", "").replace("\\,", "")
    behind = _NUMBER.findall(text.rpartition("####")[2])
    numbers = behind or _NUMBER.findall(text)
    if not numbers or len(numbers[-1]) > _LONGEST_NUMBER:
        return None
    return Fraction(numbers[-1].replace(",", ""))


def _rows(path: Path) -> Iterator[Any]:
    try:
        content = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise OpenSetError(f"{path} cannot be read as text: {error}.") from None
    if content.lstrip().startswith("["):
        try:
            yield from json.loads(content)
        except (ValueError, RecursionError) as error:
            raise OpenSetError(f"{path} is no JSON list: {error}.") from None
        return
    for number, line in enumerate(content.split("\n"), 1):  # a string may hold U+2028 as it is
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                raise OpenSetError(f"Line {number} of {path} is no JSON.") from None


def _problem(name: str, number: int, row: Any) -> Problem:
    """One row; number counts from 1."""
    try:
        question, gold = _read(row)
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError):
        raise OpenSetError(
            f"Problem {number} of {name} has neither a question and an answer that ends in "
            "#### and a number (GSM8K), nor Body, Question and Answer (SVAMP)."
        ) from None
    return Problem(
        task=name,
        level=1,
        question=question,
        trace="",
        answer=_shown(gold),
        key=f"{name}:{number}",
        gold={"number": gold},
    )


def _read(row: Mapping[str, Any]) -> tuple[str, Fraction]:
    """Question and gold number, or an exception of Python's own where they are not as described."""
    if "question" in row:
        _, mark, gold = row["answer"].rpartition("####")
        if not mark:
            raise ValueError
        question = row["question"].strip()
    else:
        body = row["Body"].strip()
        question = (
            f"{body}{'' if body.endswith(('.', '?', '!', ',')) else '.'} {row['Question'].strip()}"
        )
        gold = str(row["Answer"])
    gold = gold.strip().removeprefix("$")
    if len(gold) > _LONGEST_NUMBER or not _NUMBER.fullmatch(gold):
        raise ValueError  # also 1/2 and 1e9, which no answer is ever read as
    return question, Fraction(gold.replace(",", ""))


def _shown(number: Fraction) -> str:
    return str(number.numerator) if number.denominator == 1 else f"{float(number):g}"
