"""ingle prove as a command: the table, the JSON, another process seen from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sealing import as_user, shed

from ingle.cli.main import main
from ingle.errors import SealError
from ingle.privacy.attempt import Row
from ingle.privacy.prove import NOT_COVERED, Proof, commands
from ingle.privacy.seal import Seal, seal

SEALED = Seal("sealed", 19, 7, "empty", True, "nothing", ())


def prove(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ingle", "prove", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_table_says_what_was_tried_what_came_of_it_and_what_is_not_covered():
    done = prove()
    assert (done.returncode, done.stderr) == (0, "")
    assert "attempts sealed: 0 succeeded" in done.stdout
    assert done.stdout.count("GOT OUT") >= 12
    assert "\x1b" not in done.stdout
    for line in (*NOT_COVERED, *commands("PID")):
        assert line in done.stdout


def test_json_holds_every_row():
    done = prove("--json")
    facts = json.loads(done.stdout)
    assert done.returncode == 0 and facts["holds"] is True
    assert facts["attempts"] == len(facts["rows"]) >= 30
    assert facts["succeeded_sealed"] == 0 and facts["leaked_unsealed"] >= 12
    assert len(facts["commands"]) == 3 and facts["not_covered"]


def row(name: str, held: bool = True, heard: bool = False) -> Row:
    return Row(name, "", "EPERM" if held else "done", heard, held)


def test_a_proof_fails_by_one_success_or_a_quiet_control():
    quiet = [row("a"), row("b")]
    loud = [row(str(number), heard=True) for number in range(12)]
    assert Proof(SEALED, quiet, loud).holds
    assert Proof(SEALED, quiet).holds
    assert not Proof(SEALED, [row("a"), row("b", held=False)], loud).holds
    assert not Proof(SEALED, quiet, loud[:11]).holds


@contextmanager
def waiting(sealed: bool) -> Iterator[int]:
    """A child that waits, sealed or not; ended when the block is left."""
    told, tell = os.pipe()
    wait, release = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(release)
        try:
            shed()
            if sealed:
                seal()
            os.write(tell, b"x")
            os.read(wait, 1)
        finally:
            os._exit(0)
    os.close(wait)
    os.close(tell)
    try:
        assert os.read(told, 1) == b"x"  # nothing if it died
        yield child
    finally:
        os.close(release)
        os.waitpid(child, 0)
        os.close(told)


def test_another_process_is_seen_from_outside(capsys):
    with waiting(sealed=True) as pid:
        assert main(["prove", "--pid", str(pid), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["filtered"] and facts["no_new_privs"] and facts["holds"]
        assert facts["pid"] == pid and facts["sockets"] in (0, None)
        assert main(["prove", "--pid", str(pid)]) == 0
        assert f"/proc/{pid}/status" in capsys.readouterr().out
        first, second, _ = commands(pid)
        assert subprocess.getoutput(first).split() == ["NoNewPrivs:", "1", "Seccomp:", "2"]
        if facts["own_network"]:
            assert subprocess.getoutput(second).count(":") == 1
    with waiting(sealed=False) as pid:
        assert main(["prove", "--pid", str(pid)]) == 1
        assert "NO" in capsys.readouterr().out


def test_no_such_process(capsys):
    assert main(["prove", "--pid", "4194305"]) == 1
    assert "no process" in capsys.readouterr().err


def test_a_system_that_cannot_be_sealed_says_so():
    def work() -> None:
        from ingle.privacy.prove import prove

        sys.platform = "darwin"
        prove("sealed", [])

    with pytest.raises(SealError, match="--unsealed"):
        as_user(os.geteuid(), work)
