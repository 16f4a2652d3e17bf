"""Filters that lack a part, and the attempts that find it. As a program: all of them, as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import replace

from sealing import as_user

from ingle.privacy.attacks import attacks
from ingle.privacy.attempt import answer
from ingle.privacy.filter import rules
from ingle.privacy.seal import close
from ingle.privacy.syscalls import call, number
from ingle.privacy.witness import Witness


def mutants(whole):
    """Filters that lack something: a rule, a call of a rule, a test of a rule."""
    for index, rule in enumerate(whole):
        rest = [*whole[:index], *whole[index + 1 :]]
        yield rule.name, rest
        for name in rule.calls if len(rule.calls) > 1 else ():
            if number(name, os.uname().machine) is not None:
                calls = tuple(other for other in rule.calls if other != name)
                yield f"{rule.name}: {name}", [*rest, replace(rule, calls=calls)]
        for at, way in enumerate(rule.unless):
            for test in way:
                weaker = tuple(other for other in way if other != test)
                ways = (*rule.unless[:at], weaker, *rule.unless[at + 1 :])
                yield f"{rule.name}: way {at} without {test}", [*rest, replace(rule, unless=ways)]


def caught(make, first: str | None = None) -> str | None:
    """The attempt that shows that a filter, alone and without any depth behind it, is not whole.

    first: the one to try first, which saves the others where it succeeds.
    """

    def work() -> str | None:
        witness = Witness()
        try:
            call("prctl", 38, 1, 0, 0, 0)
            close(make(os.getpid()))
            tried = attacks("sealed", "nothing", 0, witness.places)
            tried = tried[-1:] + tried[:-1]  # soon the one of the many calls
            for attack in sorted(tried, key=lambda attack: attack.name != first):
                if not attack.refused(answer(attack, witness)):
                    return attack.name
            return None
        finally:
            witness.close()

    return as_user(os.geteuid(), work)


def main() -> None:
    names = [name for name, _ in mutants(rules("sealed", "nothing", 1))]
    missed, found = [], None
    for index, name in enumerate(names):  # neighbours are mostly shown by the same attempt
        mutant = lambda pid, at=index: list(mutants(rules("sealed", "nothing", pid)))[at][1]  # noqa: E731
        found = caught(mutant, found)
        if found is None:
            missed.append(name)
    print(json.dumps({"tried": names, "missed": missed}))


if __name__ == "__main__":
    main()
