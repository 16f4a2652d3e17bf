"""Every attempt under the seal and without it; and each rule taken out in turn."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from sealing import NOBODY, as_user, folder_of, users

from ingle.errors import SealError
from ingle.privacy.attacks import attacks
from ingle.privacy.attempt import answer
from ingle.privacy.filter import rules
from ingle.privacy.prove import LEAST_LEAKS, prove, prove_here
from ingle.privacy.seal import close, seal
from ingle.privacy.syscalls import call, number
from ingle.privacy.witness import Witness


@pytest.mark.parametrize("starts", ["nothing", "programs"])
@pytest.mark.parametrize("profile", ["sealed", "private-net"])
@pytest.mark.parametrize("user", users())
def test_nothing_gets_out(user, profile, starts):
    if (profile, starts) == ("private-net", "nothing"):
        pytest.skip("private-net always starts programs")
    with folder_of(user) as folder:
        proof = as_user(user, lambda: prove(profile, [folder], starts).as_json())
    assert [row["name"] for row in proof["rows"] if not row["held"]] == []
    assert proof["attempts"] >= (80 if profile == "sealed" else 60)
    assert proof["leaked_unsealed"] >= LEAST_LEAKS + 20
    assert proof["holds"] is True
    heard = {row["name"] for row in proof["control"] if row["heard"]}
    assert {"TCP, IPv4", "UDP, IPv4", "datagram pair, sendmsg", "named pipe", "thread",
            "accepted, turned", "Fast Open, new", "Unix stream"} <= heard  # fmt: skip


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


def test_the_whole_filter_holds_without_any_depth():
    assert caught(lambda pid: rules("sealed", "nothing", pid)) is None


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="to others the kernel itself answers EPERM")
def test_no_part_of_the_filter_can_be_spared():
    names = [name for name, _ in mutants(rules("sealed", "nothing", 1))]
    assert len(names) > 120 and len(set(names)) == len(names)
    missed, found = [], None
    for index, name in enumerate(names):  # neighbours are mostly shown by the same attempt
        mutant = lambda pid, at=index: list(mutants(rules("sealed", "nothing", pid)))[at][1]  # noqa: E731
        found = caught(mutant, found)
        if found is None:
            missed.append(name)
    assert missed == []


def test_a_seal_that_does_not_hold_stops_the_start(tmp_path):
    def work() -> str:
        from ingle.privacy import seal as module

        whole = module.rules
        module.rules = lambda *of, **by: [r for r in whole(*of, **by) if r.name != "sockets"]
        witness = Witness()
        try:
            prove_here(seal(writable=[tmp_path]), witness)
        except SealError as error:
            return str(error)
        finally:
            witness.close()
        return "served"

    told = as_user(os.geteuid(), work)
    assert told.startswith("The seal does not hold here") and "netlink" in told


def test_the_proof_needs_a_control_that_leaks():
    proof = as_user(NOBODY if os.geteuid() == 0 else os.geteuid(), lambda: _with_deaf_witness())
    assert proof["succeeded_sealed"] == 0 and proof["leaked_unsealed"] == 0
    assert proof["holds"] is False


def _with_deaf_witness():
    Witness.heard = lambda self: set()
    return prove("sealed", []).as_json()
