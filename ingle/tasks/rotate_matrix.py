"""Never trained: turn a square of digits by quarters, clockwise.

There is no trace: the task is asked only to see what carries over from the trained ones.
"""

from __future__ import annotations

import random

from ingle.tasks.base import Problem, Verdict, right, tidy, wrong
from ingle.tasks.phrasing import phrase

NAME = "rotate_matrix"
TITLE = "Rotating a matrix"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("Rotate the matrix 12/34 by 90 degrees clockwise.",)

BARE = ("rotate {m} by {d} degrees", "{m} rotated by {d} degrees clockwise")
TEMPLATES = (
    "Rotate the matrix {m} by {d} degrees clockwise.",
    "Rotate {m} by {d} degrees clockwise.",
    "Turn the matrix {m} clockwise by {d} degrees.",
    "What is the matrix {m} rotated clockwise by {d} degrees?",
    "Rotate this square matrix by {d} degrees clockwise: {m}",
    "The matrix {m} is rotated clockwise by {d} degrees. What is the result?",
)
PHRASES = BARE + TEMPLATES
# side of the square, quarters
_SHAPES = {1: (2, 1), 2: (2, 3), 3: (3, 3), 4: (4, 4), 5: (5, 7)}

Matrix = tuple[tuple[int, ...], ...]


def generate(rng: random.Random, level: int) -> Problem:
    """Sides of 2 and 3 (harder: 4, 5), up to three quarters (harder: up to seven)."""
    side, most = _SHAPES[level]
    quarters = rng.randint(1, most)
    matrix = tuple(tuple(rng.randrange(10) for _ in range(side)) for _ in range(side))
    turned = rotate(matrix, quarters)
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, m=show(matrix), d=90 * quarters),
        trace="",
        answer=show(turned),
        key=f"{NAME}:{show(matrix)}:{quarters % 4}",
        gold={"turned": turned},
    )


def rotate(matrix: Matrix, quarters: int) -> Matrix:
    """The square turned clockwise."""
    for _ in range(quarters % 4):
        matrix = tuple(zip(*matrix[::-1], strict=True))
    return matrix


def show(matrix: Matrix) -> str:
    """`12/34`."""
    return "/".join("".join(map(str, row)) for row in matrix)


def verify(problem: Problem, text: str) -> Verdict:
    """Compare the digits row by row; spaces, commas, brackets and new lines do not matter."""
    answer = tidy(text)
    if not answer or any(char not in "0123456789 /|,[]\n" for char in answer):
        return wrong("The answer is not a square of digits.")
    digits = tuple(int(char) for char in answer if char.isdigit())
    wanted = tuple(digit for row in problem.gold["turned"] for digit in row)
    if digits == wanted:
        return right()
    if len(digits) != len(wanted):
        return wrong(f"The answer has {len(digits)} digits, not {len(wanted)}.")
    return wrong("Some digits are at the wrong place.")
