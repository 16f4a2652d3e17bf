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

from ingle.errors import SealError
from ingle.parallel.environment import launch, leads, meet_among_ourselves
from ingle.state import state_folder

if TYPE_CHECKING:
    from socket import socket

    from ingle.privacy.filter import Starts
    from ingle.privacy.prove import Proof
    from ingle.privacy.seal import Shared

UNSEALED = "ingle: Not sealed: code in the model's files or in a library could open connections."


def enter(
    args: argparse.Namespace, *writable: Path, starts: Starts = "nothing", several: bool = False
) -> None:
    """Seal this process, or say on stderr that it is not; SealError where that cannot be.

    writable: besides the state folder. starts: what it may start (privacy/filter.py); temporary
    files of programs go to the state folder. several: the verb knows what to do as one of several
    processes that torchrun started (and has --expert-parallel); those share a network of their own,
    and are connected in it when this returns.
    """
    if _wanted(args):
        from ingle.privacy.seal import seal

        places = [*_state(), *writable]
        if several and launch() is not None:
            from ingle.privacy.seal import close_met

            seal("private-net", places, shared=_shared())
            meet_among_ourselves()
            from ingle.parallel.mesh import join

            join(args.expert_parallel)
            close_met()
        else:
            seal(writable=places, starts=starts)
        if starts == "programs":
            os.environ["TMPDIR"] = str(state_folder() / "tmp")
            (state_folder() / "tmp").mkdir(exist_ok=True)


def _shared() -> Shared:
    """The place of this process among those that torchrun started; SealError where some of them are
    on other machines."""
    from ingle.privacy.seal import Shared

    found = launch()
    assert found is not None
    if found.local_size != found.size:
        raise SealError(
            "Processes on several machines need connections between these, which no seal allows; "
            "--unsealed accepts that."
        )
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    meeting = state_folder() / "torchrun" / f"{os.getppid()}-{restart}"
    return Shared(meeting, found.local_rank, found.local_size)


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
    if args.unsealed and leads():
        print(UNSEALED, file=sys.stderr)
    return not args.unsealed


def _state() -> list[Path]:
    """The state folder, made if it can be: on a read-only system nothing is written at all."""
    try:
        state_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return []
    return [state_folder()]
