"""Countdown with four numbers: a search that goes down, fails, comes back and tries another way.

    Make 21 with 1, 3, 8, 2.
    21 from 1 3 8 2
    <2+1=3>3 3 8
    3-3=0>0 8: 8 8 0
    8*3=24>24 3: 27 21!
    21=24-3=(8*3)-3=(8*3)-(2+1)

A line that begins with < goes back to the four numbers, combines two of them and says which three
are left, the new one first. The lines below it combine two of those, and behind the colon stands
what the last two give: sum, difference, product and quotient, the latter where they are easy and
whole. The target ends the search with an exclamation mark; then the expression is put together.

The search is guided: a trace visits a few dead ends, drawn at random, before the way that leads to
the target (Guided Stream of Search, Moon et al. 2024). It never turns round: pairs are tried in the
order in which the numbers stand, and of a pair the sum first, so a search that draws its dead ends
as it goes repeats none. Where there is no way it gives up once it has tried more, or written more,
than is usual before a way.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from ingle.tasks import countdown
from ingle.tasks.base import MAX_SEARCH, Problem, Verdict
from ingle.tasks.phrasing import enumerate_items, phrase

NAME = "countdown4"
TITLE = "Countdown with four numbers"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("Use 3, 8, 2, 7 to make 21.", "make 50 from 6, 8, 3, 5")

BARE, TEMPLATES = countdown.BARE, countdown.TEMPLATES
PHRASES = BARE + TEMPLATES
MAX_DEAD_ENDS = 16  # before a way
LONGEST = 400  # characters without a way
_TARGETS = {1: 50, 2: 100, 3: 200, 4: 500, 5: 999}


@dataclass(frozen=True)
class Number:
    """A value, the expression that made it, and its last step in values (a given one: itself)."""

    value: int
    text: str
    step: str


@dataclass(frozen=True)
class Move:
    """Two numbers become one; `left` is what can be used after it, the new one first."""

    fact: str
    left: tuple[Number, ...]


def generate(rng: random.Random, level: int) -> Problem:
    """Numbers up to 10 and target up to 50, 20 and 100, or big numbers and 200 (harder: 999)."""
    unsolvable = rng.random() < countdown.UNSOLVABLE_SHARE
    find = give_up if unsolvable else search
    while True:
        numbers = countdown.draw_numbers(rng, level, 4)
        solved = find(rng, numbers, _TARGETS[level])
        if solved is None:
            continue
        trace, answer, target = solved
        if len(trace) <= MAX_SEARCH:
            break
    items = enumerate_items(rng, numbers)
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, items=items, t=target),
        trace=trace,
        answer=answer,
        key=f"{NAME}:{','.join(map(str, sorted(numbers)))}:{target}",
        gold={"numbers": tuple(numbers), "target": target, "solvable": not unsolvable},
    )


def search(rng: random.Random, numbers: list[int], largest: int) -> tuple[str, str, int] | None:
    """(trace, answer, target) of a random target up to `largest`, None where the draw fails.

    A way is drawn and decides the target; then dead ends are drawn and put before it.
    """
    start = tuple(Number(n, str(n), str(n)) for n in numbers)
    first = rng.choice(list(moves(start)))
    second = rng.choice(list(moves(first.left)))
    targets = [value for _, value in endings(*second.left) if 0 < value <= largest]
    targets = [value for value in targets if value not in numbers]
    if not targets:
        return None
    target = rng.choice(targets)
    lines = [f"{target} from {' '.join(map(str, numbers))}"]
    for step, after in _visits(rng, start, first, second):
        lines.append(_head(step))
        for end in after:
            line, built = _leaf(end, target)
            lines.append(line)
            if built:
                lines.append("=".join((str(target), *built)))
                return "\n".join(lines), f"{built[-1]} = {target}", target
    return None


def give_up(rng: random.Random, numbers: list[int], largest: int) -> tuple[str, str, int] | None:
    """(trace, answer, target) of a target that cannot be made, None where the one drawn can.

    The search ends at the first dead end beyond `MAX_DEAD_ENDS`, or at `LONGEST` characters.
    """
    target = rng.randint(1, largest)
    if target in numbers or countdown.has_way(numbers, target):
        return None
    start = tuple(Number(n, str(n), str(n)) for n in numbers)
    lines, left = [f"{target} from {' '.join(map(str, numbers))}"], MAX_DEAD_ENDS + 1
    for step in _some(rng, list(moves(start)), left // 2):
        lines.append(_head(step))
        for end in _some(rng, list(moves(step.left)), rng.randint(2, 4)):
            lines.append(_leaf(end, target)[0])
            left -= 1
            if not left or len("\n".join(lines)) > LONGEST:
                return "\n".join(lines), countdown.NO_WAY, target
    return None


def moves(numbers: tuple[Number, ...]) -> Iterator[Move]:
    """Every way to combine two of the numbers that the search considers."""
    for i, one in enumerate(numbers):
        for j in range(i + 1, len(numbers)):
            rest = [n for place, n in enumerate(numbers) if place not in (i, j)]
            large, small = _ordered(one, numbers[j])
            for sign, value in endings(large, small):
                fact = f"{large.value}{sign}{small.value}"
                made = Number(value, f"({large.text}{sign}{small.text})", f"({fact})")
                yield Move(f"{fact}={value}", (made, *rest))


def endings(large: Number, small: Number) -> Iterator[tuple[str, int]]:
    """Sum, difference, product and quotient of two numbers, the larger first."""
    a, b = large.value, small.value
    if a + b <= countdown.MAX_VALUE:
        yield "+", a + b
    yield "-", a - b
    if b <= countdown.MAX_FACTOR and a * b <= countdown.MAX_VALUE:
        yield "*", a * b
    if b and a % b == 0:
        yield "/", a // b


def verify(problem: Problem, text: str) -> Verdict:
    """Evaluate the expression exactly; each number must be used exactly once."""
    return countdown.verify(problem, text)


def _head(step: Move) -> str:
    """The line of a first step with the three numbers left."""
    return f"<{step.fact}>{' '.join(str(n.value) for n in step.left)}"


def _leaf(step: Move, target: int) -> tuple[str, list[str]]:
    """The line of a second step with what the last two numbers give; if that is the target, how its
    expression is put together, last step first."""
    made, other = step.left
    large, small = _ordered(made, other)
    line = f"{step.fact}>{made.value} {other.value}:"
    for sign, value in endings(large, small):
        line += f" {value}"
        if value == target:
            both = (large, small)
            values = [str(n.value) for n in both]
            one_step = [n.step if n is made else str(n.value) for n in both]
            whole = [n.text for n in both]
            return line + "!", [sign.join(pair) for pair in (values, one_step, whole)]
    return line, []


def _ordered(one: Number, other: Number) -> tuple[Number, Number]:
    """The larger first."""
    return (one, other) if one.value >= other.value else (other, one)


def _visits(
    rng: random.Random, start: tuple[Number, ...], first: Move, second: Move
) -> Iterator[tuple[Move, list[Move]]]:
    """First steps with the second steps tried below them, in the order of `moves`; the last is the
    way."""
    dead_ends = rng.randint(0, MAX_DEAD_ENDS)
    tries: list[int] = []
    while dead_ends >= 3:
        tries.append(rng.randint(2, 4))
        dead_ends -= tries[-1]
    others = _some(rng, _before(moves(start), first), len(tries))
    for other, count in zip(others, tries, strict=False):
        yield other, _some(rng, list(moves(other.left)), count)
    yield first, [*_some(rng, _before(moves(first.left), second), max(0, dead_ends)), second]


def _before(found: Iterator[Move], way: Move) -> list[Move]:
    return list(takewhile(lambda move: move.fact != way.fact, found))


def _some(rng: random.Random, found: list[Move], count: int) -> list[Move]:
    """As many of the moves, at most all, in their order."""
    places = rng.sample(range(len(found)), min(count, len(found)))
    return [found[place] for place in sorted(places)]
