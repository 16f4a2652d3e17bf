"""Traces that check themselves, and traces with a slip that is seen and mended.

    47*5: 7*5+0=35>5 4*5+3=23>235                           a trace
    47*5: 7*5+0=36 wait 7*5+0=35>5 4*5+3=23>235             with a slip
    ...
    check: 4+7=11 1+1=2 5=5 2*5=10 1+0=1 2+3+5=10 1+0=1>235   with a check, by casting out nines

Both are rare: they show a model what it may do, for reinforcement learning to amplify. The final
answer stays right. A task may bring its own `check(problem)`, the facts of a check or None; a slip
is made in any fact `a+b=c` of the trace, and in what else `_RESULTS` names.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

from ingle.tasks import ALL_TASKS
from ingle.tasks.base import MAX_SEARCH, Problem

CHECK_SHARE, SLIP_SHARE = 0.05, 0.03
CHECK, WAIT = "check: ", " wait "

# A step is what stands between spaces; group 1 is the result that a slip gets wrong.
_FACT = re.compile(r"(?<!\S)(?:[^\s\d][^\s]*?)?\d+(?:[-+*/]\d+)+=(\d+)\S*")
_RESULTS = {
    "letter_counting": re.compile(r"(?<!\S)[a-z][+-](\d+)(?!\S)"),
    "spell_backward": re.compile(r"(?<!\S)\d([a-z])(?!\S)"),
}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def vary(rng: random.Random, problem: Problem) -> Problem:
    """Now and then the problem with a check or with a slip, mostly as it is."""
    draw = rng.random()
    if draw < CHECK_SHARE:
        return with_check(problem) or problem
    if draw < CHECK_SHARE + SLIP_SHARE:
        return with_slip(rng, problem) or problem
    return problem


def with_check(problem: Problem) -> Problem | None:
    """The trace with a last line that checks the answer; None where the task has no check."""
    check = getattr(ALL_TASKS[problem.task], "check", None) or _CHECKS.get(problem.task)
    facts = check(problem) if check else None
    if not facts:
        return None
    return _bounded(problem, f"{problem.trace}\n{CHECK}{facts}>{problem.answer}")


def with_slip(rng: random.Random, problem: Problem) -> Problem | None:
    """The trace with one step got wrong, `wait`, and the step again; None where no step is fit."""
    pattern = _RESULTS.get(problem.task, _FACT)
    steps = list(pattern.finditer(problem.trace))
    if not steps:
        return None
    step = rng.choice(steps)
    before, after = problem.trace[: step.start()], problem.trace[step.start() :]
    slip = problem.trace[step.start() : step.start(1)] + _wrong(rng, step[1])
    return _bounded(problem, f"{before}{slip}{WAIT}{after}")


def _bounded(problem: Problem, trace: str) -> Problem | None:
    trained = problem.level in ALL_TASKS[problem.task].LEVELS
    return None if trained and len(trace) > MAX_SEARCH else replace(problem, trace=trace)


def _wrong(rng: random.Random, result: str) -> str:
    """Another letter, or the number with another last digit."""
    pool = _LETTERS if result.isalpha() else "0123456789"
    return result[:-1] + rng.choice([char for char in pool if char != result[-1]])


def _check_sum(problem: Problem) -> str | None:
    """The last digits of the terms make the last digit of the sum, ten more or less allowed."""
    terms = [int(term) for term in problem.key.partition(":")[2].split(",")]
    total = sum(terms)
    if total < 0:
        return None
    terms.sort(key=lambda term: term < 0)
    ends = [abs(term) % 10 * (1 if term >= 0 else -1) for term in terms]
    tens = (total % 10) - sum(ends)
    signed = "".join(f"{'-' if t < 0 else '+'}{abs(e)}" for t, e in zip(terms, ends, strict=True))
    return f"{signed[1:]}{f'{tens:+d}' if tens else ''}={total % 10}"


def _check_product(problem: Problem) -> str:
    """Casting out nines: repeated sums of digits of the factors and of the product."""
    numbers = problem.key.partition(":")[2].split(",")
    left, right = (_root(number) for number in numbers)
    product = str(left[1] * right[1])
    facts = [left[0], right[0], f"{left[1]}*{right[1]}={product}"]
    if len(product) > 1:
        facts.append(_root(product)[0])
    return " ".join((*facts, _root(problem.answer)[0]))


def _root(number: str) -> tuple[str, int]:
    """The facts of the repeated sum of digits (`4+7=11 1+1=2`) and the digit it ends in."""
    facts = [] if len(number) > 1 else [f"{number}={number}"]
    while len(number) > 1:
        total = str(sum(map(int, number)))
        facts.append(f"{'+'.join(number)}={total}")
        number = total
    return " ".join(facts), int(number)


def _check_gcd(problem: Problem) -> str:
    """Both numbers divided by the divisor."""
    divisor = int(problem.answer)
    numbers = map(int, problem.key.partition(":")[2].split(","))
    return " ".join(f"{number}/{divisor}={number // divisor}" for number in numbers)


def _check_countdown(problem: Problem) -> str | None:
    """The expression of the answer, one operation after the other, brackets first."""
    expression, equals, _ = problem.answer.partition(" = ")
    facts = []
    while equals and not expression.isdigit():
        step = re.search(r"\((\d+)([-+*/])(\d+)\)", expression) or re.search(
            r"^(\d+)([-+*/])(\d+)$", expression
        )
        assert step is not None, expression
        value = _combine(int(step[1]), step[2], int(step[3]))
        facts.append(f"{step[1]}{step[2]}{step[3]}={value}")
        expression = expression.replace(step[0], str(value), 1)
    return " ".join(facts) or None


def _combine(left: int, sign: str, right: int) -> int:
    if sign == "/":
        return left // right
    return {"+": left + right, "-": left - right, "*": left * right}[sign]


_CHECKS: dict[str, Callable[[Problem], str | None]] = {
    "sums": _check_sum,
    "products": _check_product,
    "gcd": _check_gcd,
    "countdown": _check_countdown,
    "countdown4": _check_countdown,
}
