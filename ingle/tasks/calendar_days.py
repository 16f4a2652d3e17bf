"""Days of the week, some days later or earlier.

    Today is Monday. What day is it in 45 days?
    1+45
    45/7=6r3
    1+3=4

Sunday is 0, Monday 1, and so on; only the remainder by seven counts, and a sum of seven or more
loses seven (`5+3=8 8-7=1`), a day too small for a difference gains it (`1+7=8 8-3=5`).
"""

from __future__ import annotations

import random

from ingle.tasks.base import Problem, Verdict
from ingle.tasks.choices import verify_choice
from ingle.tasks.phrasing import phrase

NAME = "calendar_days"
TITLE = "Days of the week"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("Today is Monday. What day is it in 45 days?", "friday + 10 days")

DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
LATER_BARE = ("{d} + {n} days", "{n} days after {d}", "{d}, {n} days later")
LATER = (
    "Today is {d}. What day is it in {n} days?",
    "Today is {d}. What day of the week is it in {n} days?",
    "Today is {d}. Which day is it in {n} days?",
    "What day is {n} days after {d}?",
    "What day of the week is {n} days after {d}?",
    "Which day comes {n} days after {d}?",
    "It is {d} today. What day is it in {n} days?",
    "If today is {d}, what day is it in {n} days?",
)
EARLIER_BARE = ("{d} - {n} days", "{n} days before {d}")
EARLIER = (
    "Today is {d}. What day was it {n} days ago?",
    "Today is {d}. Which day was it {n} days ago?",
    "What day is {n} days before {d}?",
    "What day of the week is {n} days before {d}?",
    "Which day comes {n} days before {d}?",
    "If today is {d}, what day was it {n} days ago?",
)
PHRASES = (*LATER_BARE, *LATER, *EARLIER_BARE, *EARLIER, *(f"{day} {day} {day}" for day in DAYS))
_LIMITS = {1: 9, 2: 30, 3: 99, 4: 365, 5: 5000}


def generate(rng: random.Random, level: int) -> Problem:
    """Up to 9 or 30 days later, up to 99 either way (harder: 365, 5000)."""
    day, count = rng.randrange(7), rng.randint(2, _LIMITS[level])
    ago = rng.random() < (0.2 if level < 3 else 0.5)
    moved = -count if ago else count
    found = DAYS[(day + moved) % 7]
    shown = DAYS[day].lower() if rng.random() < 0.2 else DAYS[day]
    templates, bare = (EARLIER, EARLIER_BARE) if ago else (LATER, LATER_BARE)
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, templates, bare, d=shown, n=count),
        trace=solve(day, moved),
        answer=found,
        key=f"{NAME}:{day}{moved:+d}",
        gold={"day": found.lower()},
    )


def solve(day: int, moved: int) -> str:
    """What is asked, the remainder by seven, then one sum; its result is the number of the day."""
    rest = abs(moved) % 7
    lines = [f"{day}{moved:+d}"]
    if abs(moved) >= 7:
        lines.append(f"{abs(moved)}/7={abs(moved) // 7}r{rest}")
    facts = []
    if moved < 0 and day < rest:
        facts.append(f"{day}+7={day + 7}")
        day += 7
    total = day + rest if moved > 0 else day - rest
    facts.append(f"{day}{'+' if moved > 0 else '-'}{rest}={total}")
    if total >= 7:
        facts.append(f"{total}-7={total - 7}")
    return "\n".join((*lines, " ".join(facts)))


def verify(problem: Problem, text: str) -> Verdict:
    """Accept the name of the day, in any case."""
    return verify_choice(problem.gold["day"], tuple(day.lower() for day in DAYS), text)
