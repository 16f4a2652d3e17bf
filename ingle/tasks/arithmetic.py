"""A tiny exact calculator for answers: whole numbers, + - * /, brackets. Nothing is executed."""

from __future__ import annotations

import re
from fractions import Fraction

MAX_LENGTH = 80
_LOOKALIKES = str.maketrans(
    {"\u00d7": "*", "\u00f7": "/", "\u2212": "-", "x": "*", "[": "(", "]": ")"}
)


def evaluate(text: str) -> tuple[Fraction, list[int]] | str:
    """The exact value and the numbers used, or one sentence on why there is none."""
    text = text.translate(_LOOKALIKES).strip()
    if not text or len(text) > MAX_LENGTH:
        return "The expression is empty or too long."
    if not re.fullmatch(r"[0-9+\-*/() ]+", text):
        return "The answer is not an expression of numbers and + - * /."
    reader = _Reader(re.findall(r"[0-9]+|[-+*/()]", text))
    try:
        value = reader.sum()
    except ZeroDivisionError:
        return "The expression divides by zero."
    except ValueError as error:
        return str(error)
    if reader.index < len(reader.tokens):
        return "The expression has a bracket or a sign too many."
    return value, reader.numbers


class _Reader:
    """Recursive descent: sum of products of numbers and brackets."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.index = 0
        self.numbers: list[int] = []

    def _next(self) -> str:
        return self.tokens[self.index] if self.index < len(self.tokens) else ""

    def sum(self) -> Fraction:
        value = self._product()
        while (sign := self._next()) in ("+", "-"):
            self.index += 1
            other = self._product()
            value = value + other if sign == "+" else value - other
        return value

    def _product(self) -> Fraction:
        value = self._atom()
        while (sign := self._next()) in ("*", "/"):
            self.index += 1
            other = self._atom()
            value = value * other if sign == "*" else value / other
        return value

    def _atom(self) -> Fraction:
        token = self._next()
        self.index += 1
        if token.isdigit():
            self.numbers.append(int(token))
            return Fraction(int(token))
        if token != "(":
            raise ValueError("The expression ends early or has two signs in a row.")
        value = self.sum()
        if self._next() != ")":
            raise ValueError("A bracket is not closed.")
        self.index += 1
        return value
