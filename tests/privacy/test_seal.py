"""The seal from inside: what is refused, what still works, what it will not close."""

from __future__ import annotations

import os
import platform
import resource
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from sealing import as_user, folder_of, users

from ingle.cli.main import main
from ingle.errors import SealError
from ingle.privacy import landlock, namespaces
from ingle.privacy.descriptors import check_descriptors
from ingle.privacy.seal import seal
from ingle.privacy.syscalls import call


def inside(work, user: int | None = None, **options):
    """What work returns in a sealed child; the name of the OSError it raises."""

    def run():
        closed = seal(**options)
        try:
            return work(closed)
        except OSError as error:
            return f"{type(error).__name__} {error.errno}"

    return as_user(os.geteuid() if user is None else user, run)


def write(path: Path) -> str:
    path.write_text("x")
    return "written"


@pytest.mark.parametrize("user", users())
def test_what_is_in_force_is_said(user):
    with folder_of(user) as folder:
        facts = inside(lambda closed: closed.as_json(), user, writable=[folder])
        assert facts["writable"] == [str(folder)]
    assert facts["profile"] == "sealed" and facts["no_new_privs"] is True
    assert facts["seccomp"] > 15
    assert facts["landlock"] == landlock.abi()
    status = inside(lambda closed: Path("/proc/self/status").read_text(), user)
    assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
    if facts["network"] == "empty":
        devices = inside(lambda closed: Path("/proc/self/net/dev").read_text(), user)
        assert [line.split(":")[0].strip() for line in devices.splitlines()[2:]] == ["lo"]


def test_what_python_needs_still_works(tmp_path):
    def work(closed):
        near, far = socket.socketpair()
        near.sendall(b"through a pair")
        heard: list[bytes] = []
        thread = threading.Thread(target=lambda: heard.append(far.recv(99)))
        thread.start()
        thread.join()
        with open(os.devnull, "w") as nowhere:
            nowhere.write("x")
        signal_to_itself = os.kill(os.getpid(), 0)
        return [heard[0].decode(), signal_to_itself, write(tmp_path / "a"), os.getcwd() != ""]

    assert inside(work, writable=[tmp_path]) == ["through a pair", None, "written", True]


@pytest.mark.skipif(landlock.abi() < 3, reason="this kernel's Landlock cannot confine all writes")
def test_writes_are_confined(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "one").touch()
    (tmp_path / "other").write_text("as it was")
    places = [tmp_path / "state", tmp_path / "one"]
    for path, expected in (
        ("state/new", "written"),
        ("one", "written"),
        ("other", "PermissionError 13"),
        ("new", "PermissionError 13"),
    ):
        target = tmp_path / path
        assert inside(lambda closed, to=target: write(to), writable=places) == expected
    refused = inside(lambda closed: os.rename(places[0] / "new", tmp_path / "out"), writable=places)
    assert refused == "PermissionError 13"
    assert (tmp_path / "other").read_text() == "as it was"


def test_a_folder_to_write_to_is_made(tmp_path):
    folder = tmp_path / "not" / "yet"
    assert inside(lambda closed: write(folder / "a"), writable=[folder]) == "written"


def test_no_core_no_look_from_others():
    def work(closed):
        return [resource.getrlimit(resource.RLIMIT_CORE), call("prctl", 3, 0, 0, 0, 0)]

    assert inside(work) == [[0, 0], 0]  # PR_GET_DUMPABLE


def test_programs_are_sealed_like_what_starts_them(tmp_path):
    code = "import socket; socket.socket()"

    def work(closed):
        run = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True)
        return run.returncode, run.stderr.decode().splitlines()[-1]

    assert inside(work) == "PermissionError 1"
    assert inside(work, starts="programs")[1].startswith("PermissionError: [Errno 1]")


def test_children_can_be_stopped_where_that_is_asked_for():
    def work(closed):
        child = os.fork()
        if child == 0:
            threading.Event().wait(2)
            os._exit(0)
        try:
            os.kill(child, 9)
        except PermissionError:
            return "refused"
        return os.WTERMSIG(os.waitpid(child, 0)[1])

    assert inside(work, starts="children") == 9
    assert inside(work) == "refused"


def open_datagram() -> int:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()


def open_pair() -> int:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].detach()


def open_connection() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return socket.create_connection(listener.getsockname()).detach()


def open_ring() -> int:
    return call("io_uring_setup", 4, bytes(120))


def open_process() -> int:
    return call("pidfd_open", os.getpid(), 0)


@pytest.mark.parametrize(
    ("opened", "named"),
    [(open_datagram, "a datagram socket"), (open_pair, "a datagram socket"),
     (open_connection, "a network connection"), (open_ring, "an object of the kernel"),
     (open_process, "an object of the kernel")],
)  # fmt: skip
def test_what_was_left_open_is_not_sealed_in(opened, named):
    def work():
        try:
            descriptor = opened()
        except OSError as error:
            return f"not here: {error.strerror}"
        try:
            seal()
        except SealError as error:
            return str(error).replace(str(descriptor), "N")
        return "sealed"

    told = as_user(os.geteuid(), work)
    if told.startswith("not here"):
        pytest.skip(told)
    assert named in told and "N>&-" in told


def test_what_leads_nowhere_may_stay_open(tmp_path):
    def work():
        kept = [os.memfd_create("x"), *os.pipe(), os.eventfd(0), os.openpty()[0]]
        kept += [one.detach() for one in socket.socketpair()]
        kept.append(os.open(tmp_path, os.O_RDONLY))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            check_descriptors([listener.fileno()])
            try:
                check_descriptors()
            except SealError:
                return "only the listener is named"
        return kept

    assert as_user(os.geteuid(), work) == "only the listener is named"


def test_a_second_thread_is_too_late():
    def work():
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            seal()
        except SealError as error:
            return str(error)
        finally:
            stop.set()
        return "sealed"

    assert "second thread" in as_user(os.geteuid(), work)


def other_system() -> None:
    sys.platform = "darwin"
    platform.system = lambda: "Darwin"


def other_machine() -> None:
    platform.machine = lambda: "riscv64"


def no_filters() -> None:
    from ingle.privacy import seal as module

    def refuse(program) -> None:
        raise OSError(38, "Function not implemented")

    module.install = refuse


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [(other_system, "Darwin has nothing"), (other_machine, "riscv64"), (no_filters, "not impl")],
)
def test_where_it_cannot_be_the_reason_and_the_risk_are_named(break_it, reason):
    def work():
        break_it()
        seal()

    with pytest.raises(SealError) as refusal:
        as_user(os.geteuid(), work)
    assert reason in str(refusal.value) and "--unsealed" in str(refusal.value)


def test_without_namespaces_and_landlock_the_filter_carries_it():
    def work():
        def refuse(loopback: bool) -> None:
            raise OSError(1, "Operation not permitted")

        namespaces.enter_empty_network = refuse
        landlock.abi = lambda: 0
        closed = seal()
        try:
            socket.socket()
        except PermissionError:
            return [closed.network, closed.landlock, str(closed)]

    network, abi, words = as_user(os.geteuid(), work)
    assert network == "the machine's (Operation not permitted)" and abi == 0
    assert "no Landlock" in words


def test_private_net_needs_a_network_of_its_own():
    def work():
        def refuse(loopback: bool) -> None:
            raise OSError(1, "Operation not permitted")

        namespaces.enter_empty_network = refuse
        seal("private-net")

    with pytest.raises(SealError, match="own network was refused"):
        as_user(os.geteuid(), work)


@pytest.mark.parametrize("user", users())
def test_private_net_reaches_itself(user):
    def work(closed):
        listener = socket.create_server(("127.0.0.1", 0))
        with listener, socket.socket() as client:
            client.connect(listener.getsockname())
            client.sendall(b"x")
            return listener.accept()[0].recv(1).decode()

    try:
        assert inside(work, user, profile="private-net") == "x"
    except SealError as error:
        if "own network was refused" not in str(error):
            raise
        pytest.skip(str(error))


def verb(arguments: list[str] | None) -> str:
    """Run a verb and say whether this process can open sockets afterwards."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    code = main(arguments)
    try:
        socket.socket().close()
    except PermissionError:
        return f"{code} sealed"
    return f"{code} open"


def test_verbs_seal_their_own_process_and_no_others(monkeypatch, tmp_path):
    monkeypatch.setenv("INGLE_CACHE", str(tmp_path))
    run = partial(as_user, os.geteuid())
    assert run(lambda: verb(["key"])) == "0 open"
    monkeypatch.setattr(sys, "argv", ["ingle", "key"])
    assert run(lambda: verb(None)) == "0 sealed"
    monkeypatch.setattr(sys, "argv", ["ingle", "key", "--unsealed"])
    assert run(lambda: verb(None)) == "0 open"
