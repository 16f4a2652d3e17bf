"""Landlock: files are written in named places only, TCP and other programs are out of reach.

Depth behind the filter for the network, and the only means for files: hidden code must not edit a
start-up file and wait. What a kernel lacks is left out and said. Source: the kernel's
Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from struct import pack

from ingle.privacy.syscalls import call

# Rights over files, by bit; what reads or executes is not restricted.
_WRITE_FILE, _REMOVE_FOLDER, _REMOVE_FILE = 1 << 1, 1 << 4, 1 << 5
_MAKE_FOLDER, _MAKE_FILE = 1 << 7, 1 << 8
_MAKE_OTHERS = 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12  # devices, sockets, pipes, links
_MOVE, _TRUNCATE = 1 << 13, 1 << 14  # from ABI 2, from ABI 3
_BIND_AND_CONNECT_TCP = 3  # from ABI 4
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2  # from ABI 6

_IN_FOLDER = (
    _WRITE_FILE | _REMOVE_FOLDER | _REMOVE_FILE | _MAKE_FOLDER | _MAKE_FILE | _MOVE | _TRUNCATE
)
_TO_FILE = _WRITE_FILE | _TRUNCATE
_VERSION, _PATH_BENEATH = 1, 1


def abi() -> int:
    """The kernel's version of Landlock; 0 without it."""
    with suppress(OSError):
        return call("landlock_create_ruleset", None, 0, _VERSION)
    return 0


def restrict(writable: Iterable[Path], tcp: bool) -> int:
    """Confine this thread, and those it starts, and return the ABI; needs no_new_privs.

    writable: folders with all below, and files. tcp: whether TCP stays possible.
    """
    version = abi()
    if version == 0:
        return 0
    known = _IN_FOLDER | _MAKE_OTHERS
    if version < 3:
        known &= ~_TRUNCATE
    if version < 2:
        known &= ~_MOVE
    network = 0 if tcp or version < 4 else _BIND_AND_CONNECT_TCP
    scopes = 0 if version < 6 else _ABSTRACT_SOCKETS | _SIGNALS
    fields = 1 if version < 4 else 2 if version < 6 else 3
    attributes = pack("=3Q", known, network, scopes)[: 8 * fields]
    ruleset = call("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        for path in writable:
            with suppress(OSError):  # what cannot be opened stays unwritable
                _allow(ruleset, path, known)
        call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: Path, known: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = _IN_FOLDER if stat.S_ISDIR(os.fstat(place).st_mode) else _TO_FILE
        rule = pack("=Qi", rights & known, place)
        call("landlock_add_rule", ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(place)
