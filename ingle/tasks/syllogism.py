"""Does a conclusion follow? Decided by the regions of a Venn diagram.

    All cats are dogs. No dogs are birds. Does it follow that no cats are birds?
    c4 d2 b1
    c-A-d:45 d-E-b:37
    x3457
    c-E-b:57 yes

Each kind of thing is a bit, so that region 5 is what is a cat and a bird but no dog. "All" and "no"
(A and E, as in the textbooks) empty regions, which `x` collects; "some" and "some ... not" (I and
O) say that one of their regions is not empty: `c-I-d:67>6` is what is left of them. A conclusion
with A or E follows where all its regions are empty, one with I or O where all that is left of some
premise lies in its regions. Nothing is assumed to exist, as in modern logic.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from ingle.tasks.base import Problem, Verdict
from ingle.tasks.choices import verify_choice
from ingle.tasks.phrasing import phrase

NAME = "syllogism"
TITLE = "Syllogisms"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("All cats are dogs. No dogs are birds. Does it follow that no cats are birds?",)

BARE = ("{p} So {c}, yes or no?", "{p} {c}: yes or no?", "{p} So {c}?")
TEMPLATES = (
    "{p} Does it follow that {c}?",
    "{p} Is it true that {c}?",
    "{p} Is it true that {c}? Answer yes or no.",
    "{p} Does that mean that {c}?",
    "It is true: {p} Does it follow that {c}?",
)
_FORMS = {
    "A": "all {a} are {b}", "E": "no {a} are {b}", "I": "some {a} are {b}",
    "O": "some {a} are not {b}",
}  # fmt: skip
THINGS = (
    "ants", "birds", "cats", "dogs", "eagles", "frogs", "goats", "horses", "kings", "lions", "mice",
    "nurses", "owls", "pilots", "robots", "spiders", "tigers", "wolves", "zebras",
)  # fmt: skip
# The things are no phrases: spelled letter by letter, their initials are visible.
PHRASES = (*BARE, *TEMPLATES, *_FORMS.values(), "All of", "No of", "Some of", "yes no")


class Claim(NamedTuple):
    """A quantifier (A, E, I or O) over two kinds of things, the subject first."""

    kind: str
    subject: str
    predicate: str


def generate(rng: random.Random, level: int) -> Problem:
    """Two premises with all and no, with some, or with a third about a fourth kind of thing."""
    wanted = rng.random() < 0.5
    while True:
        premises, conclusion = _draw(rng, level)
        solved = solve(premises, conclusion)
        if solved is not None and solved[1] == wanted:
            break
    said = " ".join(_say(claim).capitalize() + "." for claim in premises)
    answer = "yes" if wanted else "no"
    names = {name: str(n) for n, name in enumerate(_things(conclusion, premises))}
    canonical = sorted(f"{c.kind}{names[c.subject]}{names[c.predicate]}" for c in premises)
    things = ",".join(names)
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, p=said, c=_say(conclusion)),
        trace=solved[0],
        answer=answer,
        key=f"{NAME}:{','.join(canonical)}>{conclusion.kind}:{things}",
        gold={"answer": answer},
    )


def solve(premises: Sequence[Claim], conclusion: Claim) -> tuple[str, bool] | None:
    """The trace and whether the conclusion follows; None where the premises contradict."""
    things = _things(conclusion, premises)
    bits = {thing: 1 << place for place, thing in enumerate(reversed(things))}
    lines = [" ".join(f"{thing[0]}{bits[thing]}" for thing in things)]
    emptying = [(claim, _regions(claim, bits)) for claim in premises if claim.kind in "AE"]
    empty = frozenset().union(*(regions for _, regions in emptying))
    if emptying:
        lines.append(" ".join(f"{_short(c)}:{_list(regions)}" for c, regions in emptying))
        lines.append(f"x{_list(empty)}")
    lefts = []
    for claim in premises:
        if claim.kind in "IO":
            left = _regions(claim, bits) - empty
            if not left:
                return None
            lefts.append(left)
            lines.append(f"{_short(claim)}:{_list(_regions(claim, bits))}>{_list(left)}")
    goal = _regions(conclusion, bits)
    universal = conclusion.kind in "AE"
    follows = goal <= empty if universal else any(left <= goal for left in lefts)
    lines.append(f"{_short(conclusion)}:{_list(goal)} {'yes' if follows else 'no'}")
    return "\n".join(lines), follows


def verify(problem: Problem, text: str) -> Verdict:
    """Accept `yes` or `no`."""
    return verify_choice(problem.gold["answer"], ("yes", "no"), text)


def _things(conclusion: Claim, premises: Sequence[Claim]) -> list[str]:
    """Subject, what is between, predicate."""
    named = [thing for claim in premises for thing in claim[1:]]
    between = [thing for thing in dict.fromkeys(named) if thing not in conclusion[1:]]
    return [conclusion.subject, *between, conclusion.predicate]


def _regions(claim: Claim, bits: dict[str, int]) -> frozenset[int]:
    """The regions that the claim says to be empty (A, E) or one of which is not (I, O)."""
    return _within(bits[claim.subject], bits[claim.predicate], claim.kind in "EI", 1 << len(bits))


@cache
def _within(inside: int, other: int, both: bool, count: int) -> frozenset[int]:
    regions = (region for region in range(count) if region & inside)
    return frozenset(region for region in regions if bool(region & other) == both)


def _list(regions: Iterable[int]) -> str:
    return "".join("0123456789abcdef"[region] for region in sorted(regions))


def _short(claim: Claim) -> str:
    return f"{claim.subject[0]}-{claim.kind}-{claim.predicate[0]}"


def _say(claim: Claim) -> str:
    return _FORMS[claim.kind].format(a=claim.subject, b=claim.predicate)


def _draw(rng: random.Random, level: int) -> tuple[list[Claim], Claim]:
    """Premises that link the subject to the predicate through one or two other kinds."""
    things = rng.sample(THINGS, 4 if level >= 4 else 3)
    kinds = "AE" if level == 1 else "AEIO"
    premises = []
    for one, other in pairwise(things):
        if level >= 2 and rng.random() < 0.4:
            one, other = other, one
        premises.append(Claim(rng.choice(kinds if level < 3 else "AAEEIO"), one, other))
    if level >= 3 and rng.random() < (0.5 if level < 5 else 1.0):
        rng.shuffle(premises)
    conclusion = Claim(rng.choice(kinds), things[0], things[-1])
    if level >= 3 and rng.random() < 0.3:
        conclusion = Claim(conclusion.kind, things[-1], things[0])
    return premises, conclusion
