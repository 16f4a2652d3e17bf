"""Decimal to another base and back.

    Convert 405 to octal.                          What is 2d in decimal?  (base 16)
    405/8: 4/8=0r4 40/8=5r0 05/8=0r5 50r5>5        2
    50/8=6r2>25                                    d=13 2*16=32 32+13=45
    6/8=0r6>625

To a base: divide, and put each remainder before the result so far (`r13=d` in base 16). Numbers of
three digits are divided digit by digit, which takes ten times fewer facts; halves are easy at once.
From a base: multiply by the base, then add the next digit.
"""

from __future__ import annotations

import random
import re

from ingle.tasks.base import Problem, Verdict, right, tidy, verify_integer, wrong
from ingle.tasks.phrasing import phrase

NAME = "base_conversion"
TITLE = "Number bases"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("Convert 45 to binary.", "What is hex 2d in decimal?")

TO_BARE = ("{n} to {base}", "{n} -> {base}", "{n} in {base}", "{n} decimal to {base}")
TO_TEMPLATES = (
    "Convert {n} to {base}.",
    "What is {n} in {base}?",
    "What's {n} in {base}?",
    "Write {n} in {base}.",
    "Please convert {n} to {base}.",
    "Convert the decimal number {n} to {base}.",
    "Convert {n} from decimal to {base}.",
    "Convert {n} from base 10 to {base}.",
    "How do you write {n} in {base}?",
    "Express {n} in {base}.",
    "Turn {n} into {base}.",
    "Can you convert {n} to {base}?",
)
FROM_BARE = (
    "{base} {n} to decimal",
    "{n} {base} to decimal",
    "{base} {n} in decimal",
    "{n} ({base}) to decimal",
    "{n} {base} -> decimal",
)
FROM_TEMPLATES = (
    "Convert {n} from {base} to decimal.",
    "Convert {base} {n} to decimal.",
    "What is {base} {n} in decimal?",
    "What's {n} from {base} in decimal?",
    "What is {n} in {base} as a decimal number?",
    "Convert the {base} number {n} to decimal.",
    "Convert {n} from {base} to base 10.",
    "Write the {base} number {n} in decimal.",
    "Turn {base} {n} into decimal.",
    "Please convert {n} from {base} to decimal.",
    "Can you convert {base} {n} to decimal?",
)
PREFIXED_BARE = ("{n}", "{n} to decimal", "{n} in decimal", "{n} -> decimal")
PREFIXED_TEMPLATES = (
    "What is {n} in decimal?",
    "Convert {n} to decimal.",
    "Write {n} in decimal.",
    "What is {n}?",
)
_DIGITS = "0123456789abcdef"
_NAMES = {2: ("binary",), 3: ("ternary",), 8: ("octal",), 16: ("hex", "hexadecimal")}
_PREFIXES = {2: "0b", 8: "0o", 16: "0x"}
PHRASES = (
    *TO_BARE, *TO_TEMPLATES, *FROM_BARE, *FROM_TEMPLATES, *PREFIXED_BARE, *PREFIXED_TEMPLATES,
    *(f"{name} {name}" for names in _NAMES.values() for name in names),
    "base base",
)  # fmt: skip
_BASES = {1: (2,), 2: (2, 4, 8, 16), 3: (2, 3, 4, 5, 8, 16)}
_LIMITS = {1: 31, 2: 255, 3: 511, 4: 1023, 5: 4095}


def generate(rng: random.Random, level: int) -> Problem:
    """Level 1 base 2 up to 31, 2 bases 2, 4, 8, 16 up to 255, 3 also 3 and 5 up to 511."""
    base = rng.choice(_BASES.get(level, _BASES[3]))
    number = rng.randint(1, _LIMITS[level])
    digits = to_base(number, base)
    outward = rng.random() < 0.5
    question = _ask_to(rng, number, base) if outward else _ask_from(rng, digits, base)
    return Problem(
        task=NAME,
        level=level,
        question=question,
        trace=solve_to(number, base) if outward else solve_from(digits, base),
        answer=digits if outward else str(number),
        key=f"{NAME}:{'to' if outward else 'from'} {base}:{number}",
        gold={"number": number, "base": base, "to_base": outward},
    )


def to_base(number: int, base: int) -> str:
    """The digits of a positive number, lower case."""
    digits = ""
    while number:
        number, rest = divmod(number, base)
        digits = _DIGITS[rest] + digits
    return digits or "0"


def solve_to(number: int, base: int) -> str:
    """The divisions, each with the result so far."""
    lines, digits = [], ""
    while number or not digits:
        quotient, rest = divmod(number, base)
        digits = _DIGITS[rest] + digits
        letter = f"={_DIGITS[rest]}" if rest > 9 else ""
        steps = f"{number}/{base}="
        if number > 99 and base > 2:
            steps = f"{number}/{base}: {_long_division(number, base)} "
        lines.append(f"{steps}{quotient}r{rest}{letter}>{digits}")
        number = quotient
    return "\n".join(lines)


def _long_division(number: int, base: int) -> str:
    """One fact a digit, from the left: the rest so far with the next digit, divided."""
    steps, rest = [], ""
    for digit in str(number):
        quotient, left = divmod(int(rest + digit), base)
        steps.append(f"{rest}{digit}/{base}={quotient}r{left}")
        rest = str(left)
    return " ".join(steps)


def solve_from(digits: str, base: int) -> str:
    """Horner's rule, one numbered digit a line."""
    lines, number = [], 0
    for place, digit in enumerate(digits):
        value = _DIGITS.index(digit)
        line = f"{place % 10}:{digit}" + (f"={value}" if value > 9 else "")
        shifted = number * base
        number = shifted + value
        if place:
            line += f" {shifted // base}*{base}={shifted} {shifted}+{value}={number}"
        lines.append(line)
    return "\n".join(lines)


def verify(problem: Problem, text: str) -> Verdict:
    """Compare digits; case, a prefix such as 0x and leading zeros do not matter."""
    number, base = problem.gold["number"], problem.gold["base"]
    if not problem.gold["to_base"]:
        return verify_integer(number, text)
    answer = tidy(text).rpartition("=")[2].strip().lower()
    prefix = _PREFIXES.get(base, "")
    answer = (answer.removeprefix(prefix).lstrip("0") or "0") if answer else ""
    if not re.fullmatch(r"[0-9a-f]+", answer):
        return wrong(f"The answer is not a number in base {base}.")
    expected = to_base(number, base)
    if answer != expected:
        return wrong(f"{answer} is not {expected}.")
    return right()


def _base_name(rng: random.Random, base: int) -> str:
    if base in _NAMES and rng.random() < 0.6:
        return rng.choice(_NAMES[base])
    return f"base {base}"


def _ask_to(rng: random.Random, number: int, base: int) -> str:
    return phrase(rng, TO_TEMPLATES, TO_BARE, n=number, base=_base_name(rng, base))


def _ask_from(rng: random.Random, digits: str, base: int) -> str:
    if base == 16 and rng.random() < 0.1:
        digits = digits.upper()
    if base in _PREFIXES and rng.random() < 0.15:
        prefixed = _PREFIXES[base] + digits
        return phrase(rng, PREFIXED_TEMPLATES, PREFIXED_BARE, n=prefixed)
    return phrase(rng, FROM_TEMPLATES, FROM_BARE, n=digits, base=_base_name(rng, base))
