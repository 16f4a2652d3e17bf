"""What a process holds when it is sealed: the filter cannot see what was opened before it.

A datagram socket that some program left open for us would send anywhere by `sendmsg`, whose
address no filter can read; an open io_uring makes calls of its own. So everything open is looked
at, and only what leads nowhere new may stay.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable
from pathlib import Path

from ingle.errors import SealError

_HARMLESS_KERNEL_OBJECTS = ("[eventpoll]", "[eventfd]", "[timerfd]", "[signalfd]", "inotify")
_MEMORY_DEVICES = 1  # /dev/null, /dev/zero, /dev/urandom
_TERMINALS = (4, 5, *range(136, 144))


def check_descriptors(own: Iterable[int] = ()) -> None:
    """Raise SealError if anything open could be a way out; `own`: sockets known to be none."""
    known = set(own)
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor not in known and (what := dangerous(descriptor)) is not None:
            raise SealError(
                f"The program that started this one left {what} open in it (descriptor "
                f"{descriptor}), which no seal can close off. Start it from a plain shell, or "
                f"with {descriptor}>&- ."
            )


def dangerous(descriptor: int) -> str | None:
    """What is dangerous about an open descriptor; None if nothing is."""
    try:
        state = os.fstat(descriptor)
    except OSError:
        return None  # the listing's own, closed meanwhile
    mode, major = state.st_mode, os.major(state.st_rdev)
    if stat.S_ISSOCK(mode):
        return _dangerous_socket(descriptor)
    if stat.S_ISBLK(mode):
        return "a disk"
    if stat.S_ISCHR(mode):
        return None if major == _MEMORY_DEVICES or major in _TERMINALS else "a device"
    if stat.S_IFMT(mode):  # files, folders, pipes
        return None
    kind = os.readlink(f"/proc/self/fd/{descriptor}").removeprefix("anon_inode:")
    return None if kind in _HARMLESS_KERNEL_OBJECTS else "an object of the kernel"


def _dangerous_socket(descriptor: int) -> str | None:
    with socket.socket(fileno=os.dup(descriptor)) as one:
        if one.family == socket.AF_UNIX and one.type == socket.SOCK_STREAM:
            return None
        kinds = {socket.SOCK_STREAM: "a network connection", socket.SOCK_DGRAM: "a datagram socket"}
        return kinds.get(socket.SocketKind(one.type), "a socket")


def held_sockets(pid: int) -> list[str]:
    """Inode names of the sockets a process holds; PermissionError for those of other users."""
    links = (link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir())
    return sorted(name for link in links if (name := str(link)).startswith("socket:"))
