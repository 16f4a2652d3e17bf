"""Knights tell the truth, knaves lie: who is who? Every case in turn, left at its first failure.

    Ann and Bob are knights or knaves. Ann says Bob is a knave. Bob says Ann is a knave and Bob is a
    knave. Who is who?
    a:b0 b:a0&b0
    a1b1 a1:b01=0
    a1b0 a1:b00=1 b0:a01&b00=0!

The first line holds what everyone says: 1 knight, 0 knave, / or, & and, > if ... then, = the same,
# not the same. Then come the cases, all knights first. In each, person by person: the role, what is
said with the role in this case behind every claim (b01: b is said to be a knave and is a knight),
and whether that is true. It must be 1 for a knight and 0 for a knave; the first that is not ends
the case, and the search takes the next one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from ingle.tasks.base import MAX_TRACE, Problem, Verdict, right, tidy, wrong
from ingle.tasks.phrasing import phrase

NAME = "knights_knaves"
TITLE = "Knights and knaves"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = (
    "Ann and Bob are knights or knaves. Ann says Bob is a knave. Bob says Ann and Bob are the "
    "same. Who is who?",
)

BARE = ("{s} Who is a knight?", "knights and knaves: {s}", "{s} Who is who?")
TEMPLATES = (
    "{n} are knights or knaves. {s} Who is who?",
    "{n} are knights or knaves. {s} Who is a knight and who is a knave?",
    "Knights always tell the truth and knaves always lie. {s} Who is who?",
    "Knights tell the truth, knaves lie. {n} are knights or knaves. {s} Who is what?",
    "Knights tell the truth and knaves lie. {s} Find who is a knight and who is a knave.",
    "Solve the puzzle of knights and knaves: {s}",
)
PEOPLE = ("Ann", "Bob", "Cal", "Dan", "Eva", "Fay", "Gus", "Ida", "Joe", "Kim", "Leo", "Max")
_ROLES = ("knave", "knight")
_SAID = {
    "": "{a} is a {r}", "/": "{a} is a {r} or {b} is a {q}", "&": "{a} is a {r} and {b} is a {q}",
    ">": "if {a} is a {r} then {b} is a {q}", "=": "{a} and {b} are the same",
    "#": "{a} and {b} are not the same",
}  # fmt: skip
# Names are no phrases: spelled letter by letter, their initials are visible.
PHRASES = (*BARE, *TEMPLATES, *_SAID.values(), "0 says 0 is a knight 0 is a knave")
_PLAIN, _ALL = ("", "", "=", "#"), ("", "/", "&", ">", "=", "#")
_SHAPES = {1: (2, _ALL), 2: (3, _PLAIN), 3: (3, _ALL), 4: (4, _ALL), 5: (5, _ALL)}


class Saying(NamedTuple):
    """What one person says: a kind of claim about two people (places) and the roles meant."""

    kind: str
    first: int
    first_role: int
    second: int
    second_role: int

    def true(self, case: Sequence[int]) -> bool:
        """Whether it is so in a case, which holds 1 for each knight and 0 for each knave."""
        one, two = case[self.first], case[self.second]
        if self.kind in ("=", "#"):
            return (one == two) == (self.kind == "=")
        first, second = one == self.first_role, two == self.second_role
        if self.kind == ">":
            return not first or second
        if self.kind == "/":
            return first or second
        return first and (second or self.kind == "")


def generate(rng: random.Random, level: int) -> Problem:
    """Two people, three with plain claims, three with any (harder: four, five)."""
    count, kinds = _SHAPES[level]
    while True:
        sayings = [_draw(rng, speaker, count, kinds) for speaker in range(count)]
        cases = [case for case in product((1, 0), repeat=count) if _fits(case, sayings)]
        if len(cases) != 1:
            continue
        names = sorted(rng.sample(PEOPLE, count))
        trace = solve(names, sayings)
        if level in HARDER or len(trace) <= MAX_TRACE:
            break
    case = cases[0]
    said = " ".join(f"{n} says {_say(s, names)}." for n, s in zip(names, sayings, strict=True))
    everyone = f"{', '.join(names[:-1])} and {names[-1]}"
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, n=everyone, s=said),
        trace=trace,
        answer=", ".join(f"{n} is a {_ROLES[r]}" for n, r in zip(names, case, strict=True)) + ".",
        key=f"{NAME}:{' '.join(_short(_in_order(s), 'abcde') for s in sayings)}",
        gold={"roles": {n.lower(): _ROLES[r] for n, r in zip(names, case, strict=True)}},
    )


def solve(names: Sequence[str], sayings: Sequence[Saying]) -> str:
    """The sayings in short, then the cases up to the one that fits."""
    initials = [name[0].lower() for name in names]
    said = list(zip(initials, sayings, strict=True))
    lines = [" ".join(f"{initial}:{_short(saying, initials)}" for initial, saying in said)]
    for case in product((1, 0), repeat=len(names)):
        facts = ["".join(f"{i}{role}" for i, role in zip(initials, case, strict=True))]
        for role, (initial, saying) in zip(case, said, strict=True):
            true = int(saying.true(case))
            facts.append(f"{initial}{role}:{_short(saying, initials, case)}={true}")
            if true != role:
                break
        fits = _fits(case, sayings)
        lines.append(" ".join(facts) + ("!" if fits else ""))
        if fits:
            break
    return "\n".join(lines)


def verify(problem: Problem, text: str) -> Verdict:
    """Accept the role of every person, in any order: `Ann is a knight, Bob is a knave`."""
    answer, wanted = tidy(text).lower(), problem.gold["roles"]
    claims = re.findall(r"\b([a-z]+) is a (knight|knave)\b", answer)
    rest = re.sub(r"\b[a-z]+ is a (?:knight|knave)\b", "", answer)
    if not claims or rest.replace("and", "").strip(" ,.;\n"):
        return wrong("The answer does not say who is a knight and who is a knave.")
    if len(claims) != len(wanted) or {name for name, _ in claims} != set(wanted):
        return wrong("The answer does not name every person once.")
    if dict(claims) != wanted:
        return wrong("Someone has the wrong role.")
    return right()


def _fits(case: Sequence[int], sayings: Sequence[Saying]) -> bool:
    return all(s.true(case) == bool(role) for role, s in zip(case, sayings, strict=True))


def _draw(rng: random.Random, speaker: int, count: int, kinds: Sequence[str]) -> Saying:
    kind = rng.choice(kinds)
    first, second = rng.sample(range(count), 2)
    if kind == "":
        first = rng.choice([place for place in range(count) if place != speaker])
        second = first
    return Saying(kind, first, rng.randrange(2), second, rng.randrange(2))


def _in_order(saying: Saying) -> Saying:
    """The same claim with the earlier person first, where it is symmetric."""
    if saying.first <= saying.second or saying.kind == ">":
        return saying
    kind, first, first_role, second, second_role = saying
    return Saying(kind, second, second_role, first, first_role)


def _say(saying: Saying, names: Sequence[str]) -> str:
    return _SAID[saying.kind].format(
        a=names[saying.first], b=names[saying.second],
        r=_ROLES[saying.first_role], q=_ROLES[saying.second_role],
    )  # fmt: skip


def _short(saying: Saying, initials: Sequence[str], case: Sequence[int] | None = None) -> str:
    """What is said, in a case with the role of every person named."""
    one, two = initials[saying.first], initials[saying.second]
    is_one, is_two = ("", "") if case is None else (case[saying.first], case[saying.second])
    if saying.kind == "":
        return f"{one}{saying.first_role}{is_one}"
    if saying.kind in "=#":
        return f"{one}{is_one}{saying.kind}{two}{is_two}"
    return f"{one}{saying.first_role}{is_one}{saying.kind}{two}{saying.second_role}{is_two}"
