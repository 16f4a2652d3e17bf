"""A network of its own, with nothing in it: depth behind the filter.

Sockets made before stay in the network they were made in, so a server can listen first and leave
then. Root needs nothing more; an ordinary user enters a user namespace for it, which some systems
refuse (Docker, Ubuntu since 23.10).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
from pathlib import Path
from struct import pack

from ingle.privacy.syscalls import call

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_SIOCSIFFLAGS, _UP = 0x8914, 1
_SET_DUMPABLE = 4
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


def _drop_capabilities() -> None:
    """The new user namespace comes with root's powers inside it; they serve attacks only."""
    header = pack("=Ii", _CAPABILITIES_V3, 0)
    call("capset", ctypes.create_string_buffer(header), ctypes.create_string_buffer(24))
