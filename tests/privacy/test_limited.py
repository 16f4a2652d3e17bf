"""Children of limited time and memory: what they give, and what is left when they are lost."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ingle.privacy.limited import Limit, examine, examine_one
from tests.privacy.folders import WEIGHTS, good_folder, write_file


def work(what: str) -> int:
    if what == "loop":
        while True:
            pass
    if what == "memory":
        return len(b"a" * 900_000_000)
    if what == "crash":
        ctypes.string_at(0)
    if what == "raise":
        raise ValueError(what)
    if what == "print":
        os.write(2, b"seen by nobody")
    return 7


def test_one_lost_child_does_not_lose_the_rest() -> None:
    items = ["a", "loop", "b", "memory", "crash", "raise", "print", "c"]
    found = list(examine(work, items, int, seconds=1))
    reasons = [each.reason for each in found if isinstance(each, Limit)]
    assert [each for each in found if not isinstance(each, Limit)] == [7, 7, 7, 7]
    assert reasons == [
        "takes more time than the audit grants",
        "needs more memory than the audit grants",
        "crashes the program that reads it",
        "failed with ValueError",
    ]


def test_after_many_losses_the_rest_is_not_examined() -> None:
    found = list(examine(work, ["raise"] * 40, int))
    assert len(found) == 40 and all(isinstance(each, Limit) for each in found)
    assert {each.reason for each in found[16:] if isinstance(each, Limit)} == {
        "was not examined: too many files before it could not be"
    }


def children() -> set[str]:
    """Processes that this one has started and not yet waited for."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if after_name[1] == str(os.getpid()):
            found.add(entry.parent.name)
    return found


def test_no_descriptor_and_no_child_is_left() -> None:
    before = sorted(os.listdir("/proc/self/fd")), children()  # Python's own helpers stay
    assert isinstance(examine_one(work, "raise", int), Limit) and examine_one(work, "a", int) == 7
    assert (sorted(os.listdir("/proc/self/fd")), children()) == before


# Started by a small process: what one has used at its start counts as its children's, too.
MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(done.returncode, usage.ru_maxrss, done.stdout.decode())
"""


@pytest.mark.parametrize("size", [4 << 20, 12 << 20])
def test_a_hostile_header_takes_little_memory(size: int, tmp_path: Path) -> None:
    folder = good_folder(tmp_path / "model")
    write_file(folder / WEIGHTS, b'{"a":[' + b"[]," * size + b"[]]}", 0)
    command = [sys.executable, "-m", "ingle", "audit", str(folder), "--json"]
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, *command],
        check=True,
        capture_output=True,
        env={**os.environ, "INGLE_CACHE": str(tmp_path / "state")},
    )
    code, kilobytes, printed = measured.stdout.decode().split(" ", 2)
    assert code == "1" and int(kilobytes) < 200_000
    ids = {finding["id"] for finding in json.loads(printed)["facts"]["findings"]}
    assert ids & {"weights.damaged", "weights.limit"}
