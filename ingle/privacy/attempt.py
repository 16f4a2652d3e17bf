"""What an attempt on the seal is, how one is made and how it is judged.

An attempt is a function that tries to get a mark out, or to get hold of something that could.
Sealed, it must fail with the answer the filter gives, and the witness must not hear it; with the
seal off, it is the control: what the witness hears then is what the seal keeps in.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ingle.privacy.witness import Places, Witness, mark

T = TypeVar("T")
_SECONDS = 60  # an attempt that takes longer has failed


@dataclass(frozen=True)
class Field:
    """What an attempt has to work with; bait: descriptors, where it needs them."""

    name: str
    at: Places
    bait: dict[str, int] = field(default_factory=dict)

    @property
    def mark(self) -> bytes:
        return mark(self.name)

    def socket(self, name: str) -> socket.socket:
        """One of the sockets of the bait."""
        return socket.socket(fileno=self.bait[name])


@dataclass(frozen=True)
class Attack:
    """run: tries; its docstring says what. answers: what the seal must reply, by errno name; empty:
    any failure. bait: whether it needs some. layer: what stops it, "filter" or "landlock". control:
    whether it may be tried with the seal off. effect: whether success inside is a success, though
    nobody heard anything."""

    name: str
    run: Callable[[Field], object]
    answers: tuple[str, ...] = ("EPERM",)
    bait: bool = False
    layer: str = "filter"
    control: bool = True
    effect: bool = True

    @property
    def what(self) -> str:
        return (self.run.__doc__ or "").strip().split("\n")[0]

    def refused(self, answer: str) -> bool:
        """Whether an answer is the seal's."""
        return answer in self.answers if self.answers else answer != "done"


@dataclass(frozen=True)
class Row:
    """One attempt's outcome. answer: "done", the errno's name, or the signal that killed it."""

    name: str
    what: str
    answer: str
    heard: bool
    held: bool


def each(attempt: Callable[[T], object], ways: Iterable[T]) -> None:
    """Try every way; if all fail, raise the error with the highest number, EPERM being 1: an answer
    that is not the filter's shows."""
    worst = OSError(0, "nothing was tried")
    for way in ways:
        try:
            attempt(way)
            return
        except OSError as error:
            worst = max(worst, error, key=lambda one: one.errno or 0)
    raise worst


def run_attacks(witness: Witness, attacks: Sequence[Attack]) -> list[Row]:
    """Try all at once, each in a child of this process, and ask the witness."""
    witness.forget()
    children = [_start(attack, witness) for attack in attacks]
    answers = [_end(*child) for child in children]
    heard = witness.heard()
    rows = []
    for attack, got in zip(attacks, answers, strict=True):
        out = attack.name in heard
        held = not out and (attack.refused(got) or not attack.effect)
        rows.append(Row(attack.name, attack.what, got, out, held))
    return rows


def answer(attack: Attack, witness: Witness) -> str:
    """Try one and return what it met, as in `Row.answer`."""
    return _end(*_start(attack, witness))


def _start(attack: Attack, witness: Witness) -> tuple[int, int]:
    """A child that tries, and the pipe it answers through."""
    bait = witness.bait() if attack.bait else {}
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            signal.alarm(_SECONDS)
            os.write(writer, _outcome(attack, Field(attack.name, witness.places, bait)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    for descriptor in bait.values():
        os.close(descriptor)
    return child, reader


def _end(child: int, reader: int) -> str:
    with open(reader, "rb") as answers:
        got = answers.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return got or "done"  # another program took its place


def _outcome(attack: Attack, field: Field) -> str:
    try:
        attack.run(field)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    except Exception as error:
        return type(error).__name__
    return "done"
