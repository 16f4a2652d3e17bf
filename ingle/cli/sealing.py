"""How verbs are sealed: the process of the command closes itself, once, as early as it can.

`main` does it before a verb begins; a verb that has something to open first calls `enter` or
`enter_proved` itself. A verb called from a Python program is not sealed: that process is not ours,
and a seal is for good.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.state import state_folder

if TYPE_CHECKING:
    from socket import socket

    from ingle.privacy.filter import Starts
    from ingle.privacy.prove import Proof

UNSEALED = "ingle: Not sealed: code in the model's files or in a library could open connections."


def enter(args: argparse.Namespace, *writable: Path, starts: Starts = "nothing") -> None:
    """Seal this process, or say on stderr that it is not; SealError where that cannot be.

    writable: besides the state folder. starts: what it may start (privacy/filter.py); temporary
    files of programs go to the state folder.
    """
    if _wanted(args):
        from ingle.privacy.seal import seal

        seal(writable=[*_state(), *writable], starts=starts)
        if starts == "programs":
            os.environ["TMPDIR"] = str(state_folder() / "tmp")
            (state_folder() / "tmp").mkdir(exist_ok=True)


def enter_proved(args: argparse.Namespace, listener: socket) -> Proof | None:
    """Seal a server that listens already, and attack it; SealError if any attempt succeeds."""
    if not _wanted(args):
        return None
    from ingle.privacy.prove import prove_here
    from ingle.privacy.seal import check_system, seal
    from ingle.privacy.witness import Witness

    check_system()
    witness = Witness()
    try:
        return prove_here(seal(writable=_state(), sockets=[listener]), witness)
    finally:
        witness.close()


def _wanted(args: argparse.Namespace) -> bool:
    from ingle.privacy.seal import OFFLINE

    if not args.own_process:
        return False
    os.environ.update(OFFLINE)
    if args.unsealed:
        print(UNSEALED, file=sys.stderr)
    return not args.unsealed


def _state() -> list[Path]:
    """The state folder, made if it can be: on a read-only system nothing is written at all."""
    try:
        state_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return []
    return [state_folder()]
