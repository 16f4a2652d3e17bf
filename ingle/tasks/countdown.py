"""Countdown: use three numbers, each once, with + - * / to make a target.

    Use 75, 6, 12 to make 3.
    3 from 75 6 12
    012 75+6=081-078~084/027 75-6=069-066~072/023 75*6=450-447
    006 75+12=087-084~090/029 75-12=063-060~066/021 75*12=900-897
    075 12+6=018-015~021/006%054 12-6=006-003~009/002%018 12*6=072-069~075!

A search in fixed order with real back-tracking: choose the number used last (the last one of the
question first) and write what the other two give. Behind each value x stands what the last number
would have to be: with + x+last, - x-last, ~ last-x, * x*last, / x/last, % last/x is the target.
When that is the last number itself, an exclamation mark ends the search. Here: 75-(12*6) = 3.

Everything that is compared has three digits and is compared with one number at a fixed place, the
head of the line. A small model cannot tell which of several numbers it has seen, and learns one
difference sooner than the two to four results that each value could have (docs/log.md).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations

from ingle.tasks.arithmetic import evaluate
from ingle.tasks.base import MAX_TRACE, Problem, Verdict, right, tidy, wrong
from ingle.tasks.phrasing import enumerate_items, phrase

NAME = "countdown"
TITLE = "Countdown with three numbers"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("Use 75, 6, 12 to make 3.", "make 26 from 4, 7, 2")

NO_WAY = "I found no way."
UNSOLVABLE_SHARE = 0.04
# Products of larger numbers are left out of the search: they would be new facts, hardly ever used.
MAX_FACTOR, MAX_VALUE, MAX_NUMBER = 12, 999, 100

BARE = ("{items} = {t}", "{items} -> {t}", "{items} make {t}", "{items} to {t}", "{t} from {items}")
TEMPLATES = (
    "Use {items} to make {t}.",
    "Use {items} to get {t}.",
    "Use {items} to reach {t}.",
    "Use the numbers {items} to make {t}.",
    "Using {items}, make {t}.",
    "Using the numbers {items}, make {t}.",
    "Make {t} from {items}.",
    "Make {t} out of {items}.",
    "Make {t} with {items}.",
    "Make {t} using {items}.",
    "Get {t} from {items}.",
    "Can you make {t} from {items}?",
    "How can I make {t} from {items}?",
    "How do you make {t} with {items}?",
    "Combine {items} to make {t}.",
    "Find a way to make {t} from {items}.",
    "Countdown: {items}, target {t}.",
    "Countdown {items} target {t}",
    "Numbers {items}, target {t}.",
    "Please use {items} to make {t}.",
)
PHRASES = (*BARE, *TEMPLATES, NO_WAY)
_TARGETS = {1: 50, 2: 100, 3: 200, 4: 500, 5: 999}
_BIG = (25, 50, 75, 100)
_FORMS = {
    "+": "{x}+{last}", "-": "{x}-{last}", "~": "{last}-{x}", "*": "{x}*{last}", "/": "{x}/{last}",
    "%": "{last}/{x}",
}  # fmt: skip


def generate(rng: random.Random, level: int) -> Problem:
    """Numbers up to 10 and target up to 50, 20 and 100, or big numbers and 200 (harder: 999)."""
    unsolvable = rng.random() < UNSOLVABLE_SHARE
    while True:
        numbers = draw_numbers(rng, level, 3)
        if unsolvable:
            target = rng.randint(1, _TARGETS[level])
            if has_way(numbers, target):
                continue
        else:
            choices = sorted(n for n in _whole_values(numbers) if n <= _TARGETS[level])
            if not choices:
                continue
            target = rng.choice(choices)
        trace, expression = solve(numbers, target)
        if (expression is None) == unsolvable and (level in HARDER or len(trace) <= MAX_TRACE):
            break
    items = enumerate_items(rng, numbers)
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, items=items, t=target),
        trace=trace,
        answer=NO_WAY if expression is None else f"{expression} = {target}",
        key=f"{NAME}:{','.join(map(str, sorted(numbers)))}:{target}",
        gold={"numbers": tuple(numbers), "target": target, "solvable": not unsolvable},
    )


def solve(numbers: list[int], target: int) -> tuple[str, str | None]:
    """The trace and the expression found, None where the search finds no way."""
    lines = [f"{target} from {' '.join(map(str, numbers))}"]
    for index in reversed(range(len(numbers))):
        last = numbers[index]
        large, small = sorted(numbers[:index] + numbers[index + 1 :], reverse=True)
        line = f"{last:03d}"
        for pair, value in _pairs(large, small):
            line += f" {pair}={value:03d}"
            for sign, needed in _needed(value, target):
                line += f"{sign}{needed:03d}"
                if needed == last:
                    expression = _FORMS[sign].format(x=f"({pair})", last=last)
                    return "\n".join([*lines, line + "!"]), expression
        lines.append(line)
    return "\n".join(lines), None


def verify(problem: Problem, text: str) -> Verdict:
    """Evaluate the expression exactly; each number must be used exactly once."""
    numbers, target = problem.gold["numbers"], problem.gold["target"]
    answer = tidy(text)
    if answer.lower() == tidy(NO_WAY).lower():
        if problem.gold["solvable"]:
            return wrong("There is a way.")
        return right("There is no way.")
    expression, equals, claim = answer.partition("=")
    if equals and claim.strip() != str(target):
        return wrong(f"The right side should be {target}.")
    outcome = evaluate(expression)
    if isinstance(outcome, str):
        return wrong(outcome)
    value, used = outcome
    if sorted(used) != sorted(numbers):
        return wrong("Each number must be used exactly once.")
    if value != target:
        return wrong(f"The expression makes {value}, not {target}.")
    return right()


def draw_numbers(rng: random.Random, level: int, count: int) -> list[int]:
    """Numbers up to 10, up to 20, or one or two big ones among small ones (harder: rather two)."""
    if level < 3:
        return [rng.randint(1, 10 * level) for _ in range(count)]
    big = [rng.choice(_BIG) if rng.random() < 0.5 else rng.randint(10, 99)]
    if rng.random() < (0.3 if level == 3 else 0.7):
        big.append(rng.choice(_BIG))
    numbers = big + [rng.randint(1, 12) for _ in range(count - len(big))]
    rng.shuffle(numbers)
    return numbers


def has_way(numbers: list[int], target: int) -> bool:
    """Whether any expression of two or more numbers makes the target, with fractions and negatives
    on the way, too."""
    return _reaches(tuple(map(Fraction, numbers)), target)


def _reaches(numbers: tuple[Fraction, ...], target: int) -> bool:
    if len(numbers) == 2:
        a, b = numbers
        divides = (b != 0 and a == target * b) or (a != 0 and b == target * a)
        return divides or target in (a + b, a - b, b - a, a * b)
    for i, j in combinations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = tuple(n for place, n in enumerate(numbers) if place not in (i, j))
        made = (a + b, a - b, b - a, a * b, *([a / b] if b else []), *([b / a] if a else []))
        if any(_reaches((*rest, value), target) for value in made):
            return True
    return False


def _pairs(large: int, small: int) -> Iterator[tuple[str, int]]:
    """What two numbers give, the larger first: (expression, value of at most three digits)."""
    if large + small <= MAX_VALUE:
        yield f"{large}+{small}", large + small
    yield f"{large}-{small}", large - small
    if small <= MAX_FACTOR and large * small <= MAX_VALUE:
        yield f"{large}*{small}", large * small
    if small and large % small == 0:
        yield f"{large}/{small}", large // small


def _needed(x: int, target: int) -> Iterator[tuple[str, int]]:
    """Every (sign, number) that makes the target of x; numbers of a question are at most 100."""
    yield ("+", target - x) if target >= x else ("-", x - target)
    if x == 0:
        return
    if x + target <= MAX_NUMBER:
        yield "~", x + target
    if target % x == 0 and min(x, target // x) <= MAX_FACTOR and target // x <= MAX_NUMBER:
        yield "*", target // x
    elif x % target == 0 and min(target, x // target) <= MAX_FACTOR and x // target <= MAX_NUMBER:
        yield "/", x // target
    if x * target <= MAX_NUMBER:
        yield "%", x * target


def _whole_values(numbers: list[int]) -> set[int]:
    """Every value that the numbers make with the pairs of the search, each number used once."""
    values: set[int] = set()
    for index, last in enumerate(numbers):
        large, small = sorted(numbers[:index] + numbers[index + 1 :], reverse=True)
        for _, pair in _pairs(large, small):
            values.update(value for _, value in _pairs(max(pair, last), min(pair, last)))
    return values - {0}
