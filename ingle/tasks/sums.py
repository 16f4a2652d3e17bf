"""Chains of + and -, one operation a line, one column a fact.

    What is 47 + 85 - 127?
    47+85: 7+5+0=12>2 4+8+1=13>132
    132-127: 2-7-0=5b1>5 3-2-1=0b0>05 1-1-0=0b0>005=5

The result of a line opens the next; `=5` drops leading zeros at the very end. Where the smaller
number comes first, `12<47` says so and the difference is taken the other way round.
"""

from __future__ import annotations

import random

from ingle.tasks.base import Problem, Verdict, verify_integer
from ingle.tasks.columns import add, strip, subtract
from ingle.tasks.phrasing import BARE_SHARE, phrase

NAME = "sums"
TITLE = "Addition and subtraction"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("What is 47 + 85?", "250 - 75 + 8")

BARE = ("{e}=", "{e}", "{e} =", "{e}=?")
TEMPLATES = (
    "What is {e}?",
    "What's {e}?",
    "Calculate {e}.",
    "Compute {e}.",
    "How much is {e}?",
    "Work out {e}.",
    "Can you work out {e}?",
    "Solve {e}.",
    "Please calculate {e}.",
    "{e} = ?",
    "{e}?",
    "What does {e} make?",
    "What is the result of {e}?",
    "Tell me what {e} is.",
)
SPOKEN = (
    "{e}",
    "What is {e}?",
    "What's {e}?",
    "How much is {e}?",
    "Calculate {e}.",
    "{e} equals?",
    "{e} is what?",
)
ADD_LISTED = (
    "Add {items}.",
    "Add {items} together.",
    "What is the sum of {items}?",
    "Sum of {items}",
    "Find the sum of {items}.",
    "Please add {items}.",
    "The total of {items}?",
)
TAKE_TWO = (
    "Subtract {b} from {a}.",
    "Take {b} away from {a}.",
    "What is {a} take away {b}?",
    "{a} take away {b}",
    "What do you get if you subtract {b} from {a}?",
)
PHRASES = (
    *BARE, *TEMPLATES, *SPOKEN, *ADD_LISTED, *TAKE_TWO,
    "{a} plus {b} minus {c} less {d} and {e}",
)  # fmt: skip


def generate(rng: random.Random, level: int) -> Problem:
    """A chain: level 1 two terms up to 99, 2 up to 999, 3 up to four terms or four digits."""
    terms = _draw(rng, level)
    total = sum(terms)
    signed = sorted(f"{term:+d}" for term in terms)
    return Problem(
        task=NAME,
        level=level,
        question=_ask(rng, terms),
        trace=solve(terms),
        answer=str(total),
        key=f"{NAME}:{','.join(signed)}",
        gold={"total": total},
    )


def solve(terms: list[int]) -> str:
    """The trace of a chain given as signed terms, the first one positive."""
    if len(terms) == 2 and sum(terms) < 0:
        small, large = str(terms[0]), str(-terms[1])
        line, result = subtract(large, small)
        return f"{small}<{large}\n{line}{strip(result)}\n-{int(result)}"
    # a chain in any words is first written with signs, so that the next term is easy to find
    lines = ["".join([str(terms[0]), *(f"{t:+d}" for t in terms[1:])])] if len(terms) > 2 else []
    result = str(terms[0])
    for term in terms[1:]:
        operation = add if term >= 0 else subtract
        line, result = operation(result, str(abs(term)))
        lines.append(line)
    return "\n".join(lines) + strip(result)


def verify(problem: Problem, text: str) -> Verdict:
    """Compare with the total."""
    return verify_integer(problem.gold["total"], text)


def _draw(rng: random.Random, level: int) -> list[int]:
    if level == 1:
        count, digits = 2, 2
    elif level == 2:
        count, digits = rng.choice((2, 2, 3)), 3
    elif level == 3:
        count, digits = rng.choice(((2, 4), (2, 4), (3, 3), (3, 3), (4, 3)))
    else:
        count, digits = level, level
    # A few chains stay below their level's width, so that small numbers are never forgotten.
    widths = [rng.choice((*range(1, digits + 1), digits)) for _ in range(count)]
    numbers = [rng.randrange(10 ** (width - 1) if width > 1 else 0, 10**width) for width in widths]
    terms = [numbers[0]]
    for number in numbers[1:]:
        if rng.random() < 0.45:
            number = -number
        if sum(terms) + number < 0:
            if count == 2 and rng.random() < 0.75:
                terms, number = [-number], -terms[0]
            elif count > 2:
                number = -number
        terms.append(number)
    return terms


def _ask(rng: random.Random, terms: list[int]) -> str:
    first, rest = terms[0], terms[1:]
    gap = rng.choice(("", " "))
    signs = [f"{gap}{'+' if term >= 0 else '-'}{gap}{abs(term)}" for term in rest]
    written = str(first) + "".join(signs)
    if rng.random() < BARE_SHARE:
        return rng.choice(BARE).format(e=written)
    draw = rng.random()
    if draw < 0.15 and all(term >= 0 for term in rest):
        if len(terms) > 2 and rng.random() < 0.3:
            items = ", ".join(map(str, terms))
        else:
            items = ", ".join(map(str, terms[:-1])) + f" and {terms[-1]}"
        return phrase(rng, ADD_LISTED, (), items=items)
    if draw < 0.15 and len(terms) == 2 and rest[0] < 0:
        return phrase(rng, TAKE_TWO, (), a=first, b=-rest[0])
    if draw < 0.37:
        minus = rng.choice(("minus", "minus", "less", "take away"))
        spoken = [str(first)]
        spoken += [f"plus {term}" if term >= 0 else f"{minus} {-term}" for term in rest]
        return phrase(rng, SPOKEN, (), e=" ".join(spoken))
    return phrase(rng, TEMPLATES, (), e=written)
