"""Sudoku on four by four cells, by elimination.

    Solve the 4x4 sudoku 3___/42__/2_13/__2_.
    3___/42__/2_13/__2_
    12:3___,_2__,3_42=1 13:31__,__12,____=4 14:314_,__3_,4___=2 ...
    3142/4231/2413/1324

A line has the empty cells (row, then column), each with its row, its column and its box as they
are, and the digits that these leave it; where there is one only, it is filled at once. Then the
grid is written again, and what is still empty gets another line. No guess is needed: on so small a
grid elimination alone solves whatever has one solution (4,500 of 4,500 drawn with 10 to 12 empty
cells).
"""

from __future__ import annotations

import random
from itertools import permutations

from ingle.tasks.base import MAX_TRACE, Problem, Verdict, right, tidy, wrong
from ingle.tasks.phrasing import phrase

NAME = "mini_sudoku"
TITLE = "Sudoku, four by four"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("Solve the 4x4 sudoku 1_3_/34__/_1_3/4__1.",)

BARE = ("sudoku {g}", "4x4 sudoku {g}", "sudoku: {g}", "solve sudoku {g}")
TEMPLATES = (
    "Solve the sudoku {g}.",
    "Solve the 4x4 sudoku {g}.",
    "Solve this sudoku: {g}",
    "Solve this 4x4 sudoku: {g}",
    "Complete the 4x4 sudoku {g}.",
    "Complete this sudoku: {g}",
    "Find the solution of the sudoku {g}.",
    "Please solve the sudoku {g}.",
    "Can you solve the 4x4 sudoku {g}?",
    "What is the solution of the 4x4 sudoku {g}?",
)
PHRASES = BARE + TEMPLATES
EMPTY = "_"
_EMPTIES = {1: (3, 5), 2: (5, 7), 3: (7, 9), 4: (9, 10), 5: (11, 12)}

# the other cells of each cell's row, column and box
_PEERS = tuple(
    tuple(
        peer for peer in range(16)
        if peer != cell and (
            peer // 4 == cell // 4 or peer % 4 == cell % 4
            or (peer // 8, peer % 4 // 2) == (cell // 8, cell % 4 // 2)
        )
    )
    for cell in range(16)
)  # fmt: skip
Grid = list[str]  # 16 cells, row by row, each a digit or EMPTY


def generate(rng: random.Random, level: int) -> Problem:
    """3-5, 5-7 or 7-9 empty cells (harder: up to 12), always one solution."""
    fewest, most = _EMPTIES[level]
    while True:
        puzzle = _dig(rng, _filled(rng), rng.randint(fewest, most))
        if puzzle.count(EMPTY) < fewest:
            continue
        trace, solution = solve(puzzle)
        if EMPTY not in solution and (level in HARDER or len(trace) <= MAX_TRACE):
            break
    shown = show(puzzle)
    if rng.random() < 0.4:
        shown = "\n" + shown.replace("/", "\n")
    return Problem(
        task=NAME,
        level=level,
        question=_ask(rng, shown),
        trace=trace,
        answer=show(solution).replace("/", "\n"),
        key=f"{NAME}:{show(puzzle)}",
        gold={"solution": "".join(solution), "puzzle": "".join(puzzle)},
    )


def solve(puzzle: Grid) -> tuple[str, Grid]:
    """The trace and the grid as far as elimination fills it."""
    grid, lines = list(puzzle), [show(puzzle)]
    while EMPTY in grid:
        facts, before = [], grid.count(EMPTY)
        for cell in (cell for cell in range(16) if grid[cell] == EMPTY):
            digits = candidates(grid, cell)
            facts.append(f"{cell // 4 + 1}{cell % 4 + 1}:{_around(grid, cell)}={digits}")
            if len(digits) == 1:
                grid[cell] = digits
        lines += [" ".join(facts), show(grid)]
        if grid.count(EMPTY) == before:
            break
    return "\n".join(lines), grid


def show(grid: Grid) -> str:
    """`12_4/34__/...`."""
    return "/".join("".join(grid[start : start + 4]) for start in range(0, 16, 4))


def candidates(grid: Grid, cell: int) -> str:
    """The digits that the row, the column and the box of a cell leave."""
    seen = {grid[peer] for peer in _PEERS[cell]}
    return "".join(digit for digit in "1234" if digit not in seen)


def _around(grid: Grid, cell: int) -> str:
    row, column = cell // 4, cell % 4
    corner = 8 * (row // 2) + 2 * (column // 2)
    units = (range(4 * row, 4 * row + 4), range(column, 16, 4),
             (corner, corner + 1, corner + 4, corner + 5))  # fmt: skip
    return ",".join("".join(grid[place] for place in unit) for unit in units)


def verify(problem: Problem, text: str) -> Verdict:
    """Accept the sixteen digits row by row, with any separators, and nothing else."""
    answer = tidy(text)
    digits = "".join(char for char in answer if char in "1234")
    if len(digits) != 16 or any(char not in "1234 /|,[]\n" for char in answer):
        return wrong("The answer is not a grid of sixteen digits from 1 to 4.")
    if digits == problem.gold["solution"]:
        return right()
    if any(here not in (EMPTY, d) for here, d in zip(problem.gold["puzzle"], digits, strict=True)):
        return wrong("A given digit was changed.")
    return wrong("A digit is twice in a row, a column or a box.")


def _solutions(grid: Grid, limit: int) -> int:
    """How many solutions there are, at most `limit`."""
    empty = [cell for cell in range(16) if grid[cell] == EMPTY]
    if not empty:
        return 1
    cell = min(empty, key=lambda cell: len(candidates(grid, cell)))
    found = 0
    for digit in candidates(grid, cell):
        grid[cell] = digit
        found += _solutions(grid, limit - found)
        grid[cell] = EMPTY
        if found >= limit:
            break
    return found


_BASES = ("1234341221434321", "1234341223414123", "1234341243212143")


def _filled(rng: random.Random) -> Grid:
    """A full grid, each of the 288 possible ones about as often."""
    digits = rng.choice(list(permutations("1234")))
    grid = [digits[int(d) - 1] for d in rng.choice(_BASES)]
    rows = [grid[start : start + 4] for start in range(0, 16, 4)]
    for _ in range(2):  # rows of a band change places, then the same with columns
        rows = [row for n in (0, 2) for row in rng.sample(rows[n : n + 2], 2)]
        rows = [list(column) for column in zip(*rows, strict=True)]
    return [digit for row in rows for digit in row]


def _dig(rng: random.Random, solution: Grid, empties: int) -> Grid:
    """Empty cells in random order as long as one solution remains."""
    grid = list(solution)
    for cell in rng.sample(range(16), 16):
        if grid.count(EMPTY) == empties:
            break
        grid[cell] = EMPTY
        if _solutions(list(grid), 2) > 1:
            grid[cell] = solution[cell]
    return grid


def _ask(rng: random.Random, shown: str) -> str:
    question = phrase(rng, TEMPLATES, BARE, g="{g}")
    return question.replace(" {g}", shown if shown[0] == "\n" else f" {shown}")
