"""Every attempt under the seal and without it; and each rule taken out in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import caught
from sealing import NOBODY, as_user, folder_of, users

from ingle.errors import SealError
from ingle.privacy.filter import rules
from ingle.privacy.prove import LEAST_LEAKS, prove, prove_here
from ingle.privacy.seal import seal
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


def test_the_whole_filter_holds_without_any_depth():
    assert caught(lambda pid: rules("sealed", "nothing", pid)) is None


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="to others the kernel itself answers EPERM")
def test_no_part_of_the_filter_can_be_spared():
    """In a process that has loaded little: each of thousands of attempts forks it."""
    done = subprocess.run([sys.executable, Path(__file__).with_name("mutants.py")],
                          stdout=subprocess.PIPE, check=True, timeout=900)  # fmt: skip
    told = json.loads(done.stdout)
    assert len(told["tried"]) > 120 and len(set(told["tried"])) == len(told["tried"])
    assert told["missed"] == []


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
