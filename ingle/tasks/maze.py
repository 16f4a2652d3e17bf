"""The shortest way through a small maze, by breadth-first search.

    How many steps is the shortest path from S to G in this maze?
    S.#
    #..
    G..
    11S12.13#/21#22.23./31G32.33.
    0:11>11:12.21#
    1:12>12:11-13#22.
    2:22>22:12-21#23.32.
    3:23 32>23:13#22-33. 32:22-31G!4

The first line names every cell by row and column. Then each line has the cells at one distance from
S and, for each of them, the cells above, left, right and below: # wall, - seen before, . new. The
new ones, in this order, begin the next line.
"""

from __future__ import annotations

import random

from ingle.tasks.base import MAX_SEARCH, Problem, Verdict, right, tidy, verify_integer, wrong
from ingle.tasks.phrasing import phrase

NAME = "maze"
TITLE = "Shortest path in a maze"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("Find the shortest path from S to G: S.#/#../G..",)

NO_PATH = "There is no path."
BARE = ("shortest path: {m}", "maze: {m}", "steps from S to G: {m}", "maze {m}")
TEMPLATES = (
    "How many steps is the shortest path from S to G: {m}",
    "How many steps from S to G: {m}",
    "How many steps is it from S to G in this maze: {m}",
    "Find the shortest path from S to G: {m}",
    "Find the number of steps of the shortest path from S to G: {m}",
    "What is the shortest path from S to G: {m}",
    "What is the smallest number of steps from S to G: {m}",
    "Count the steps of the shortest path from S to G: {m}",
    "Solve the maze: {m}",
    "Please solve this maze: {m}",
)
PHRASES = (*BARE, *TEMPLATES, NO_PATH)
_SIZES = {1: 3, 2: 4, 3: 5, 4: 6, 5: 7}
WALL = "#"

Place = tuple[int, int]


def generate(rng: random.Random, level: int) -> Problem:
    """Squares of 3, 4 or 5 cells (harder: 6, 7), a third of them walls; one in ten is closed."""
    size = _SIZES[level]
    closed = rng.random() < 0.1
    while True:
        rows = _draw(rng, size)
        trace, distance = solve(rows)
        fits = level in HARDER or len(trace) <= MAX_SEARCH
        if fits and (distance is None) == closed:
            break
    shown = "/".join(rows) if rng.random() < 0.5 else "\n" + "\n".join(rows)
    question = phrase(rng, TEMPLATES, BARE, m="{m}").removesuffix("{m}").rstrip()
    return Problem(
        task=NAME,
        level=level,
        question=question + (shown if shown[0] == "\n" else f" {shown}"),
        trace=trace,
        answer=NO_PATH if distance is None else str(distance),
        key=f"{NAME}:{'/'.join(rows)}",
        gold={"steps": distance},
    )


def solve(rows: list[str]) -> tuple[str, int | None]:
    """The trace and the number of steps, None where no way leads to G."""
    cells = {(r, c): mark for r, row in enumerate(rows) for c, mark in enumerate(row)}
    size = range(len(rows))
    lines = ["/".join("".join(_name((r, c)) + cells[r, c] for c in size) for r in size)]
    start = next(place for place, mark in cells.items() if mark == "S")
    seen, frontier, distance = {start}, [start], 0
    while frontier:
        found: list[Place] = []
        looks = []
        for place in frontier:
            looks.append(f"{_name(place)}:{_look(place, cells, seen, found)}")
            if looks[-1].endswith("!"):
                break
        lines.append(f"{distance}:{' '.join(map(_name, frontier))}>{' '.join(looks)}")
        distance += 1
        if looks[-1].endswith("!"):
            return "\n".join(lines) + str(distance), distance
        frontier = found
    return "\n".join((*lines, f"{distance}:no")), None


def verify(problem: Problem, text: str) -> Verdict:
    """Compare with the number of steps, or with the sentence that there is no path."""
    steps = problem.gold["steps"]
    if tidy(text).lower() in ("there is no path", "no path"):
        return right("There is no path.") if steps is None else wrong("There is a path.")
    if steps is None:
        return wrong("There is no path.")
    return verify_integer(steps, text.strip().removesuffix("steps"))


def _look(at: Place, cells: dict[Place, str], seen: set[Place], found: list[Place]) -> str:
    """What lies around a cell, up to the goal; new cells are added to `seen` and `found`."""
    row, column = at
    text = ""
    for place in ((row - 1, column), (row, column - 1), (row, column + 1), (row + 1, column)):
        mark = cells.get(place)
        if mark is None:
            continue
        if place in seen:
            mark = "-"
        elif mark != WALL:
            seen.add(place)
            found.append(place)
        text += _name(place) + mark
        if mark == "G":
            return text + "!"
    return text


def _name(place: Place) -> str:
    return f"{place[0] + 1}{place[1] + 1}"


def _draw(rng: random.Random, size: int) -> list[str]:
    cells = [WALL if rng.random() < 0.34 else "." for _ in range(size * size)]
    start, goal = rng.sample(range(size * size), 2)
    cells[start], cells[goal] = "S", "G"
    return ["".join(cells[row * size : (row + 1) * size]) for row in range(size)]
