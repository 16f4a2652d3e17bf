"""A child process to be sealed in: a seal is for good, the tests' own process must stay open."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ingle.privacy.attacks  # noqa: F401  before a child changes its user: it may be unable to read modules
from ingle.errors import SealError
from ingle.privacy.descriptors import dangerous
from ingle.privacy.prove import in_child
from ingle.privacy.syscalls import call

NOBODY = 65534


def become(user: int) -> None:
    """Change this process's user for good."""
    if user != os.geteuid():
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        call("prctl", 4, 1, 0, 0, 0)  # its files in /proc are its own, as after starting a program


def shed() -> None:
    """In a child: close what other tests left open in the process it came from."""
    for name in os.listdir("/proc/self/fd"):
        if dangerous(int(name)) is not None:
            os.close(int(name))


def as_user(user: int, work: Callable[[], Any]) -> Any:
    """What `work` returns (as JSON can hold it) in a child of another user."""

    def changed() -> dict[str, Any]:
        try:
            shed()
            become(user)
            return {"value": work()}
        except Exception as error:
            if not isinstance(error, SealError):
                traceback.print_exc()
            raise

    return in_child(changed)["value"]


@contextmanager
def folder_of(user: int) -> Iterator[Path]:
    """An empty folder of a user; pytest's own ones are closed to all but the user of the tests."""
    with tempfile.TemporaryDirectory(prefix="ingle-test-") as name:
        os.chown(name, user, user)
        yield Path(name)


def users() -> list[int]:
    """Root and an ordinary user, or whoever runs the tests."""
    return [0, NOBODY] if os.geteuid() == 0 else [os.geteuid()]
