"""The seal: from here on, the kernel refuses this process every way to anyone else.

One call, before the first other thread, before a byte of a model is read and before torch is
imported: what runs later, native code included, cannot undo it. The filter (`filter.py`) carries
the promise and is mandatory; Landlock and an empty network are depth, taken where the kernel has
them, and what is active is said. Two profiles: `sealed`, no socket at all, and `private-net`, for
several processes that need to reach each other over 127.0.0.1: TCP inside a network of their own.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from socket import socket
from typing import Any

from ingle.errors import SealError
from ingle.privacy import landlock, namespaces
from ingle.privacy.bpf import Rule, assemble, install
from ingle.privacy.descriptors import check_descriptors
from ingle.privacy.filter import Profile, Starts, rules
from ingle.privacy.syscalls import ARCHITECTURES, call

_SET_DUMPABLE, _SET_NO_NEW_PRIVS = 4, 38
DEVICES = ("null", "nvidia*", "kfd", "dri")  # in /dev: written to by everything, by GPU libraries
SHARED_MEMORY = Path("/dev/shm")  # for programs of several processes

# Libraries that would ask the network are told not to; the seal makes it true, this saves waiting.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "DO_NOT_TRACK": "1",
    "WANDB_MODE": "disabled",
}


@dataclass(frozen=True)
class Shared:
    """This process's place among several that one program started, to be in one network. meeting:
    a folder that is theirs alone until they are (`namespaces.enter_shared_network`)."""

    meeting: Path
    rank: int
    size: int


@dataclass(frozen=True)
class Seal:
    """What is in force.

    seccomp: number of rules of the filter. landlock: ABI of what confines writes, 0 if nothing
    does. network: "empty", or why it is the machine's. writable: where files may be written, beside
    devices that keep nothing.
    """

    profile: Profile
    seccomp: int
    landlock: int
    network: str
    no_new_privs: bool
    starts: Starts
    writable: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        """One line for people."""
        files = f"writes only to {', '.join(self.writable) or 'nowhere'}"
        return " · ".join((
            f"sealed by the kernel ({self.seccomp} rules)",
            "in an empty network" if self.network == "empty" else f"network: {self.network}",
            files if self.landlock else "files: writable (this kernel has no Landlock)",
        ))  # fmt: skip


def seal(
    profile: Profile = "sealed",
    writable: Sequence[Path] = (),
    sockets: Sequence[socket] = (),
    starts: Starts = "nothing",
    shared: Shared | None = None,
) -> Seal:
    """Seal this process for good and say what is in force; SealError where that is impossible.

    writable: folders and files that may be written; folders are made. sockets: those it may keep,
    such as a listening one. starts: see `filter.rules`; private-net always starts programs. shared:
    with whom a private-net is shared, nobody if not given; `close_met` has to follow.
    """
    check_system()
    if profile == "private-net":
        starts = "programs"
    if len(os.listdir("/proc/self/task")) > 1:
        raise SealError("The seal must be closed before a process has a second thread.")
    check_descriptors(one.fileno() for one in sockets)
    network = _leave_network(profile, shared)
    places = [path.absolute() for path in writable]
    for path in places:
        try:
            if not path.exists():
                path.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise SealError(f"{path.name} cannot be made or seen: {error.strerror}.") from None
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        call("prctl", _SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        call("prctl", _SET_DUMPABLE, 0, 0, 0, 0)  # core dumps into a pipe heed no limit
        devices = [device for name in DEVICES for device in Path("/dev").glob(name)]
        memory = [SHARED_MEMORY] if starts == "programs" else []
        confined = landlock.restrict([*places, *devices, *memory], tcp=profile == "private-net")
        refused = rules(profile, starts, os.getpid(), lists=shared is not None)
        close(refused)
    except OSError as error:
        raise _impossible(f"the kernel refused a filter ({error.strerror})") from None
    places_shown = tuple(str(path) for path in [*places, *memory])
    return Seal(profile, len(refused), confined, network, True, starts, places_shown)


def close(refused: Sequence[Rule]) -> None:
    """Install a filter of these rules; needs no_new_privs."""
    install(assemble(refused, platform.machine()))


def close_met() -> None:
    """The second half of the seal of a shared private-net, once its processes are connected: what
    they needed for that is refused from here on, in all threads."""
    close(rules("private-net", "programs", os.getpid()))


def check_system() -> None:
    """Raise SealError on a system that is none of those the seal is written for."""
    if sys.platform != "linux":
        raise _impossible(f"{platform.system()} has nothing that could, only Linux has")
    if platform.machine() not in ARCHITECTURES or ctypes.sizeof(ctypes.c_void_p) != 8:
        known = " and ".join(ARCHITECTURES)
        raise _impossible(f"the filter is written for {known}, this is {platform.machine()}")


def _leave_network(profile: Profile, shared: Shared | None) -> str:
    try:
        if shared is None:
            namespaces.enter_empty_network(loopback=profile == "private-net")
        else:
            assert profile == "private-net"
            namespaces.enter_shared_network(shared.meeting, shared.rank, shared.size)
    except OSError as error:
        if profile == "private-net":
            raise _impossible(f"an own network was refused ({error.strerror})") from None
        return f"the machine's ({error.strerror})"
    return "empty"


def _impossible(reason: str) -> SealError:
    return SealError(
        f"This system cannot be sealed: {reason}. Unsealed, nothing but trust keeps a model's "
        "files or a library from opening connections; --unsealed accepts that."
    )
