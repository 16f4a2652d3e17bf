"""Several processes under one seal: a network of their own, and no more of it than they need."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
import time
import traceback
from pathlib import Path

import pytest
from launch import HERE, logged, torchrun

from ingle.cli import sealing
from ingle.errors import ConfigError, SealError
from ingle.parallel.environment import Launch, launch, meet_among_ourselves, refuse_several
from ingle.privacy import namespaces
from ingle.privacy.filter import rules
from ingle.privacy.syscalls import call

SET = {
    "RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "elsewhere", "MASTER_PORT": "1",
}  # fmt: skip


def test_torchrun_is_known_by_what_it_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch({}) is None
    assert launch({**SET, "OTHER": "x"}) == Launch(3, 8, 1, 2)
    assert all(launch({k: v for k, v in SET.items() if k != name}) is None for name in SET)
    own = dict(SET)
    meet_among_ourselves(own)
    assert own["MASTER_ADDR"] == "127.0.0.1"
    refuse_several("sft --data")
    for name, value in SET.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="sft --data runs in one process"):
        refuse_several("sft --data")


def test_several_machines_are_refused_under_the_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SET.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SealError, match="several machines"):
        sealing._shared()


def test_only_listing_interfaces_is_allowed_more_and_only_at_first() -> None:
    first = {rule.name: rule for rule in rules("private-net", "programs", 1, lists=True)}
    then = {rule.name: rule for rule in rules("private-net", "programs", 1)}
    assert first.keys() ^ then.keys() == {"addressed sends", "fast open by sendto"}
    differs = {name for name in first.keys() & then.keys() if first[name] != then[name]}
    assert differs == {"sockets"}
    assert len(first["sockets"].unless) == len(then["sockets"].unless) + 1


def test_a_process_that_does_not_come_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="did not come"):
        namespaces.enter_shared_network(tmp_path / "meeting", 1, 2, patience=0.1)
    (tmp_path / "first").write_text("1")  # a process that another program started
    with pytest.raises(TimeoutError, match="did not come"):
        namespaces.enter_shared_network(tmp_path, 1, 2, patience=0.1)


def meet(user: int, meeting: Path, rank: int, pipe: int) -> None:
    """A child: into the shared network, then one listens there and the other connects."""
    signal.alarm(40)  # the end of a child that waits in vain
    if user != os.geteuid():
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        call("prctl", 4, 1, 0, 0, 0)  # its files in /proc are its own, as after starting a program
    namespaces.enter_shared_network(meeting, rank, 2, patience=20)
    port, deadline = 4000, time.monotonic() + 10
    if rank == 0:
        with socket.create_server(("127.0.0.1", port)) as listener:
            heard = listener.accept()[0].recv(1).decode()
    else:
        heard = "x"
        while True:
            try:
                with socket.socket() as client:
                    client.connect(("127.0.0.1", port))
                    client.sendall(b"x")
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
    status = Path("/proc/self/status").read_text().splitlines()
    powers = next(int(line.split()[1], 16) for line in status if line.startswith("CapPrm"))
    facts = [heard, os.readlink("/proc/self/ns/net"), powers]
    os.write(pipe, json.dumps(facts).encode())


@pytest.mark.parametrize("user", [0, 65534] if os.geteuid() == 0 else [os.geteuid()])
def test_processes_of_any_user_meet_in_one_network(user: int) -> None:
    with tempfile.TemporaryDirectory(prefix="ingle-test-") as name:
        os.chown(name, user, user)
        pipes, children = [os.pipe() for _ in range(2)], []
        for rank, (_, write) in enumerate(pipes):
            if (child := os.fork()) == 0:
                try:
                    meet(user, Path(name) / "meeting", rank, write)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        for _, write in pipes:
            os.close(write)
        told = [os.read(read, 9999) for read, _ in pipes]
        if not any(told) and user:
            pytest.skip("this system gives ordinary users no network of their own")
        first, second = map(json.loads, told)
        assert not os.listdir(name)
    assert first[0] == second[0] == "x"
    assert first[1] == second[1] != os.readlink("/proc/self/ns/net")
    assert all(powers >> 12 & 1 == 0 for _, _, powers in (first, second))
    assert user == 0 or first[2] == second[2] == 0


@pytest.mark.slow
def test_processes_share_an_empty_network_and_nothing_else(tmp_path: Path) -> None:
    torchrun(2, HERE / "several_sealed.py", tmp_path, INGLE_CACHE=str(tmp_path / "state"))
    found = [json.loads((tmp_path / f"facts-{rank}").read_text("utf-8")) for rank in range(2)]
    assert found[0]["network"] == found[1]["network"] != os.readlink("/proc/self/ns/net")
    for facts in found:
        assert facts["sum"] == 3.0  # they reached each other
        assert facts["devices"] == ["lo"]
        assert facts["net_admin"] is False
        assert facts["netlink"] == facts["datagram"] == "PermissionError 1"
        assert facts["addressed"] == "PermissionError 1"
        assert facts["outside"].startswith("OSError 101")  # no network to reach it by
        assert facts["written"] == "PermissionError 13" or not facts["landlock"]


@pytest.mark.slow
def test_the_command_line_under_torchrun(tmp_path: Path) -> None:
    """Sealed; only the first process speaks and writes."""
    said = torchrun(
        2, "-m", "ingle", "train", "nano", "--out", tmp_path / "run", "--steps", "1",
        "--expert-parallel", "2", "--precision", "bf16", "--json", INGLE_CACHE=str(tmp_path / "s"),
    )  # fmt: skip
    results = [line for line in said.splitlines() if line.startswith("{")]
    assert [json.loads(line)["steps"] for line in results] == [1]
    assert said.count("nano-pretrain 1/1") == 1
    assert "Not sealed" not in said
    assert [entry["step"] for entry in logged(tmp_path / "run")] == [0]
    head = json.loads((tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()[0])
    assert head["config"]["precision"] == "bf16"
