"""The shortest way through a small maze, by breadth-first search.

    How many steps is the shortest path from S to G in this maze?
    S.#
    #..
    G..
    1:1S2.3# 2:1#2.3. 3:1G2.3. S11 G31
    0:11
    1:12
    2:22
    3:23 32
    4:33 31!

The first line numbers the cells of each row; then each line has the cells (row, then column)
at one distance from S, found from those of the line before, looking up, left, right and down.
"""

from __future__ import annotations

import random

from ingle.tasks.base import Problem, Verdict, right, tidy, verify_integer, wrong
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
        if (distance is None) == closed:
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
    size = range(len(rows))
    places = {(r, c): rows[r][c] for r in size for c in range(len(rows[r])) if rows[r][c] != WALL}
    start, goal = (next(p for p, mark in places.items() if mark == m) for m in "SG")
    cells = [
        f"{number}:{''.join(f'{column}{mark}' for column, mark in enumerate(row, 1))}"
        for number, row in enumerate(rows, 1)
    ]
    lines = [f"{' '.join(cells)} S{_name(start)} G{_name(goal)}"]
    seen, frontier, distance = {start}, [start], 0
    while frontier:
        shown = " ".join(map(_name, frontier))
        lines.append(f"{distance}:{shown}")
        if goal in frontier:
            lines[-1] += "!"
            return "\n".join(lines), distance
        frontier = _beside(frontier, places, seen)
        # what is found after the goal does not matter
        if goal in frontier:
            frontier = frontier[: frontier.index(goal) + 1]
        distance += 1
    return "\n".join((*lines, f"{distance}:no")), None


def verify(problem: Problem, text: str) -> Verdict:
    """Compare with the number of steps, or with the sentence that there is no path."""
    steps = problem.gold["steps"]
    if tidy(text).lower() in ("there is no path", "no path"):
        return right("There is no path.") if steps is None else wrong("There is a path.")
    if steps is None:
        return wrong("There is no path.")
    return verify_integer(steps, text.strip().removesuffix("steps"))


def _beside(frontier: list[Place], places: dict[Place, str], seen: set[Place]) -> list[Place]:
    found = []
    for row, column in frontier:
        for place in ((row - 1, column), (row, column - 1), (row, column + 1), (row + 1, column)):
            if place in places and place not in seen:
                seen.add(place)
                found.append(place)
    return found


def _name(place: Place) -> str:
    return f"{place[0] + 1}{place[1] + 1}"


def _draw(rng: random.Random, size: int) -> list[str]:
    cells = [WALL if rng.random() < 0.34 else "." for _ in range(size * size)]
    start, goal = rng.sample(range(size * size), 2)
    cells[start], cells[goal] = "S", "G"
    return ["".join(cells[row * size : (row + 1) * size]) for row in range(size)]
