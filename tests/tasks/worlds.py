"""Whether a syllogism is valid, by search for a world in which it fails."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ingle.tasks.syllogism import Claim


def follows(premises: Sequence[Claim], conclusion: Claim) -> bool:
    """By search for a counterexample: a world of up to four things that are of any kinds."""
    kinds = sorted({kind for claim in (*premises, conclusion) for kind in claim[1:]})
    things = [frozenset(k for k, on in zip(kinds, bits, strict=True) if on)
              for bits in itertools.product((0, 1), repeat=len(kinds))]  # fmt: skip
    tests = {
        "A": lambda s, p, world: all(p in thing for thing in world if s in thing),
        "E": lambda s, p, world: not any(s in thing and p in thing for thing in world),
        "I": lambda s, p, world: any(s in thing and p in thing for thing in world),
        "O": lambda s, p, world: any(s in thing and p not in thing for thing in world),
    }
    for size in range(5):
        for world in itertools.combinations(things, size):
            if all(tests[c.kind](*c[1:], world) for c in premises) and not tests[conclusion.kind](
                *conclusion[1:], world
            ):
                return False
    return True
