"""The proof: every attempt under the seal, the same without it, and a look from outside.

What is proved is what the kernel answered and what a witness outside did not hear; with the seal
off the witness must hear it, or the attempts would be worth nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ingle.errors import SealError
from ingle.privacy.attacks import attacks
from ingle.privacy.attempt import Attack, Row, run_attacks
from ingle.privacy.descriptors import held_sockets
from ingle.privacy.filter import Profile, Starts
from ingle.privacy.landlock import abi
from ingle.privacy.seal import Seal, check_system, seal
from ingle.privacy.witness import Witness

LEAST_LEAKS = 12

NOT_COVERED = (
    "root, or a hole in the kernel",
    "an answer of the model that persuades you to send something",
    "the program that asks, and the network between it and the server",
    "others who can read this machine's disk, swap or GPU memory, and whoever reads the output",
    "what is learned from how long answers take, by users who share a key",
    "ingle pull, which uses the network and prints every request",
)


@dataclass(frozen=True)
class Proof:
    """seal: what was in force. rows: with it. control: without it; None if that was not tried."""

    seal: Seal
    rows: list[Row]
    control: list[Row] | None = None

    @property
    def failed(self) -> list[Row]:
        """Attempts that got through, or got another answer than the seal's."""
        return [row for row in self.rows if not row.held]

    @property
    def leaks(self) -> int:
        """Attempts the witness heard with the seal off."""
        return sum(row.heard for row in self.control or ())

    @property
    def holds(self) -> bool:
        return not self.failed and (self.control is None or self.leaks >= LEAST_LEAKS)

    def as_json(self) -> dict[str, Any]:
        return {
            "holds": self.holds,
            "attempts": len(self.rows),
            "succeeded_sealed": len(self.failed),
            "leaked_unsealed": None if self.control is None else self.leaks,
            "seal": self.seal.as_json(),
            "rows": [asdict(row) for row in self.rows],
            "control": None if self.control is None else [asdict(row) for row in self.control],
            "not_covered": list(NOT_COVERED),
        }


def prove_here(sealed: Seal, witness: Witness) -> Proof:
    """Attack this process, which is sealed; the witness was made before. Raises SealError."""
    tried = attacks(sealed.profile, sealed.starts, sealed.landlock, witness.places)
    proof = Proof(sealed, run_attacks(witness, tried))
    if proof.failed:
        names = ", ".join(f"{row.name} ({row.answer})" for row in proof.failed)
        raise SealError(f"The seal does not hold here. What got through: {names}.")
    return proof


def prove(profile: Profile, writable: Sequence[Path], starts: Starts = "nothing") -> Proof:
    """Attack a sealed child of this process, then one that is not sealed."""
    check_system()
    witness = Witness()
    try:
        places = witness.places

        def sealed() -> dict[str, Any]:
            closed = seal(profile, writable, starts=starts)
            tried = attacks(profile, closed.starts, closed.landlock, places)
            return {"seal": asdict(closed), "rows": _rows(witness, tried)}

        def control() -> dict[str, Any]:
            tried = attacks("sealed", "nothing", abi(), places)
            return {"rows": _rows(witness, [attack for attack in tried if attack.control])}

        found, without = in_child(sealed), in_child(control)
    finally:
        witness.close()
    closed = Seal(**found["seal"] | {"writable": tuple(found["seal"]["writable"])})
    rows = [Row(**row) for row in found["rows"]]
    return Proof(closed, rows, [Row(**row) for row in without["rows"]])


def _rows(witness: Witness, tried: Sequence[Attack]) -> list[dict[str, Any]]:
    return [asdict(row) for row in run_attacks(witness, tried)]


def in_child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of work done in a child of this process; its SealError is raised here."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            with open(writer, "w") as out:
                try:
                    json.dump({"done": work()}, out)
                except SealError as error:
                    json.dump({"refused": str(error)}, out)
                except Exception as error:
                    json.dump({"refused": f"It could not be tried: {type(error).__name__}."}, out)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as answers:
        text = answers.read()
    os.waitpid(child, 0)
    answer = json.loads(text or '{"refused": "The process that was to be sealed died."}')
    if "refused" in answer:
        raise SealError(answer["refused"])
    done: dict[str, Any] = answer["done"]
    return done


@dataclass(frozen=True)
class Outside:
    """What the kernel tells about another process, without asking it.

    devices: its network's, with the packets they sent. sockets: how many it holds; None where only
    root and its owner may look.
    """

    pid: int
    filtered: bool
    no_new_privs: bool
    own_network: bool
    devices: dict[str, int]
    sockets: int | None

    @property
    def holds(self) -> bool:
        return self.filtered and self.no_new_privs

    def as_json(self) -> dict[str, Any]:
        return {"holds": self.holds, **asdict(self)}


def look_at(pid: int) -> Outside:
    """Read a process's seal from /proc; SealError if there is no such process."""
    base = Path(f"/proc/{pid}")
    try:
        status = dict(line.split(":\t", 1) for line in (base / "status").read_text().splitlines())
        lines = (base / "net/dev").read_text().splitlines()[2:]
    except (OSError, ValueError):
        raise SealError(f"There is no process {pid} to look at.") from None
    devices = {name.strip(): int(rest.split()[9]) for name, _, rest in
               (line.partition(":") for line in lines)}  # fmt: skip
    try:
        sockets: int | None = len(held_sockets(pid))
    except OSError:
        sockets = None
    own = set(devices) == {"lo"} and sum(devices.values()) == 0
    filtered, no_new_privs = status["Seccomp"] == "2", status["NoNewPrivs"] == "1"
    return Outside(pid, filtered, no_new_privs, own, devices, sockets)


def commands(pid: int | str) -> tuple[str, ...]:
    """Three commands that check a process without ingle: 2 and 1; only lo, without a packet; its
    sockets."""
    return (
        f"grep -E 'Seccomp:|NoNewPrivs:' /proc/{pid}/status",
        f"cat /proc/{pid}/net/dev",
        f"sudo ss -anp | grep pid={pid},",
    )
