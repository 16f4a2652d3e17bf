"""A network of its own, with nothing in it: depth behind the filter.

Sockets made before stay in the network they were made in, so a server can listen first and leave
then. Root needs nothing more; an ordinary user enters a user namespace for it, which some systems
refuse (Docker, Ubuntu since 23.10).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from struct import pack

from ingle.privacy.syscalls import call

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_SIOCSIFFLAGS, _UP = 0x8914, 1
_SET_DUMPABLE = 4
_NET_ADMIN = 12
_CAPABILITIES_V3 = 0x20080522


def enter_empty_network(loopback: bool) -> None:
    """Leave the network for an empty one; `loopback` gives it a working 127.0.0.1.

    The process must have one thread. Its user, and so its files, stay the same. OSError where the
    system refuses.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        call("unshare", _NEW_NET)
        mapped = False
    except PermissionError:
        call("unshare", _NEW_USER | _NEW_NET)
        # after a change of user, and only then, the next files would belong to root
        call("prctl", _SET_DUMPABLE, 1, 0, 0, 0)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        mapped = True
    if loopback:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, pack("16sH14x", b"lo", _UP))
    if mapped:
        _drop_capabilities()


def enter_shared_network(meeting: Path, rank: int, size: int, patience: float = 180.0) -> None:
    """As `enter_empty_network` with a loopback, but one network for `size` processes that one
    program has started: the first makes it, the others follow it there. None of them, root neither,
    can change that network afterwards, such as tie it to another.

    meeting: a folder of these processes only, which they make, write to and remove. OSError where
    the system refuses, TimeoutError where one of them does not come for `patience` seconds.
    """
    first = meeting / "first"
    if rank == 0:
        shutil.rmtree(meeting, ignore_errors=True)  # of processes that are gone
        meeting.mkdir(parents=True, mode=0o700)
        enter_empty_network(loopback=True)
        _drop_capabilities(1 << _NET_ADMIN)
        (meeting / "writing").write_text(str(os.getpid()))
        (meeting / "writing").rename(first)
        _await(lambda: all((meeting / str(i)).exists() for i in range(1, size)), patience)
        shutil.rmtree(meeting)
    else:
        _await(lambda: first.exists() and _is_sibling(int(first.read_text())), patience)
        _follow(int(first.read_text()))
        (meeting / str(rank)).touch()


def _follow(pid: int) -> None:
    """Into the network, and the user namespace that owns it, of another process of this user."""
    kinds = [("user", _NEW_USER), ("net", _NEW_NET)]
    own, other = Path("/proc/self/ns"), Path(f"/proc/{pid}/ns")
    opened = [
        (os.open(other / name, os.O_RDONLY | os.O_CLOEXEC), kind)
        for name, kind in kinds
        if (own / name).readlink() != (other / name).readlink()
    ]
    for descriptor, kind in opened:
        call("setns", descriptor, kind)
        os.close(descriptor)
    if len(opened) == len(kinds):
        call("prctl", _SET_DUMPABLE, 1, 0, 0, 0)
        _drop_capabilities()
    _drop_capabilities(1 << _NET_ADMIN)
    devices = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    if [line.split(":")[0].strip() for line in devices] != ["lo"]:
        raise PermissionError(errno.EPERM, "the network to share is not an empty one")


def _is_sibling(pid: int) -> bool:
    """Whether the program that started this process has started that one, too."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False
    return int(after_name.split()[1]) == os.getppid()


def _await(come: Callable[[], bool], patience: float) -> None:
    end = time.monotonic() + patience
    while not come():
        if time.monotonic() > end:
            raise TimeoutError(errno.ETIMEDOUT, "the other processes of the run did not come")
        time.sleep(0.02)


def _drop_capabilities(which: int = -1) -> None:
    """The new user namespace comes with root's powers inside it; they serve attacks only. Root
    itself keeps its own, but for those that `which` has bits for."""
    status = Path("/proc/self/status").read_text().splitlines()
    masks = dict(line.split(":\t") for line in status if line.startswith("Cap"))
    kept = [int(masks[name], 16) & ~which for name in ("CapEff", "CapPrm", "CapInh")]
    low, high = [mask & 0xFFFFFFFF for mask in kept], [mask >> 32 for mask in kept]
    header = pack("=Ii", _CAPABILITIES_V3, 0)
    call("capset", ctypes.create_string_buffer(header),
         ctypes.create_string_buffer(pack("=6I", *low, *high)))  # fmt: skip
