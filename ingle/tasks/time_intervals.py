"""How much time passes between two times of day?

    How long is it from 22:40 to 01:15?
    15+60=75 75-40=35
    1+24=25 25-22=3 3-1=2>2:35

From the right, as in a written subtraction: what is missing is borrowed first (60, or 24 at
midnight) and taken from the next field last (-1).
"""

from __future__ import annotations

import random
import re

from ingle.tasks.base import Problem, Verdict, right, tidy, wrong
from ingle.tasks.phrasing import phrase

NAME = "time_intervals"
TITLE = "Time intervals"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("How long is it from 22:40 to 01:15?", "time from 8:05 to 11:20")

BARE = ("{a} to {b}", "time from {a} to {b}", "{a} - {b}, how long?", "from {a} to {b}")
TEMPLATES = (
    "How long is it from {a} to {b}?",
    "How much time is it from {a} to {b}?",
    "How much time is there from {a} to {b}?",
    "How much time is between {a} and {b}?",
    "What is the time between {a} and {b}?",
    "What is the time from {a} to {b}?",
    "It is {a} now. How long is it to {b}?",
    "It is {a}. How much time is it to {b}?",
    "Find the time from {a} to {b}.",
    "Calculate the time between {a} and {b}.",
)
PHRASES = BARE + TEMPLATES
_DAY = 24 * 3600


def generate(rng: random.Random, level: int) -> Problem:
    """Multiples of five minutes, any minutes, past midnight too (harder: with seconds)."""
    step = {1: 300, 2: 60, 3: 60}.get(level, 1)
    start, end = (rng.randrange(0, _DAY, step) for _ in range(2))
    if start > end and (level < 3 or level == 4):
        start, end = end, start
    seconds = level in HARDER
    padded = rng.random() < 0.7
    shown = [clock(second, seconds, padded) for second in (start, end)]
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, a=shown[0], b=shown[1]),
        trace=solve(start, end, seconds),
        answer=clock((end - start) % _DAY, seconds, padded=False),
        key=f"{NAME}:{start}-{end}",
        gold={"seconds": (end - start) % _DAY, "start": start, "with_seconds": seconds},
    )


def clock(second: int, with_seconds: bool, padded: bool) -> str:
    """A time of day or an interval as `2:35` or `2:35:07`; padded `02:35`."""
    hours, minutes, seconds = second // 3600, second // 60 % 60, second % 60
    text = f"{hours:02d}" if padded else str(hours)
    return f"{text}:{minutes:02d}" + (f":{seconds:02d}" if with_seconds else "")


def solve(start: int, end: int, with_seconds: bool) -> str:
    """A line for each field from the right, the result on the last one."""
    fields = [(60, 60), (3600, 24)] if not with_seconds else [(1, 60), (60, 60), (3600, 24)]
    lines, borrow = [], 0
    for unit, base in fields:
        one, other = end // unit % base, start // unit % base
        left, facts = one - other - borrow, []
        if left < 0:
            facts.append(f"{one}+{base}={one + base}")
            one += base
        facts.append(f"{one}-{other}={one - other}")
        if borrow:
            facts.append(f"{one - other}-1={one - other - 1}")
        borrow = int(left < 0)
        lines.append(" ".join(facts))
    return "\n".join(lines) + f">{clock((end - start) % _DAY, with_seconds, padded=False)}"


def check(problem: Problem) -> str:
    """Start and interval added, field by field."""
    seconds, start = problem.gold["seconds"], problem.gold["start"]
    with_seconds, carry = problem.gold["with_seconds"], 0
    facts = []
    for unit, base in ((1, 60), (60, 60), (3600, 24))[0 if with_seconds else 1 :]:
        one, other = start // unit % base, seconds // unit % base
        total = one + other + carry
        taken = f"+{carry}" if carry else ""
        carry = int(total >= base)
        facts.append(f"{one}+{other}{taken}{f'-{base}' if carry else ''}={total % base}")
    return " ".join(facts)


def verify(problem: Problem, text: str) -> Verdict:
    """Accept `2:35`, `02:35` and, where the question has seconds, `2:35:07`."""
    found = re.fullmatch(r"([0-9]{1,2}):([0-5][0-9])(?::([0-5][0-9]))?", tidy(text))
    if found is None:
        return wrong("The answer is not hours and minutes such as 2:35.")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    if 3600 * hours + 60 * minutes + seconds != problem.gold["seconds"]:
        return wrong(f"{found[0]} is not the time between the two.")
    return right()
