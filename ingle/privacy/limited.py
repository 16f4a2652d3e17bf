"""Examine untrusted content in a child process that may use only so much time and memory.

A parser can loop, blow up or crash on hostile bytes. Here that ends a child, and is a fact to
report. The child is a fork: it inherits the seal, and imports nothing from a folder of its own.
"""

from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import msgspec

Item = TypeVar("Item")
Result = TypeVar("Result")

_MAX_LINE = 16 << 20  # of one result
_MAX_FAILURES = 16  # children lost before the rest of the items is given up
_WALL = 30  # wall seconds for each second of CPU: the machine may be busy


@dataclass(frozen=True)
class Limit:
    """An item on which the child was lost."""

    reason: str


class _LostError(Exception):
    """The child is gone, or is being ended."""


def examine(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    result: type[Result],
    *,
    seconds: int = 4,
    megabytes: int = 128,
) -> Iterator[Result | Limit]:
    """`function(item)` of every item in order, or the Limit it ran into.

    seconds: CPU time of one item. megabytes: on top of what this process has. A function must
    handle its own errors: what it raises is a Limit, too. After 16 of them the rest are Limits.
    """
    done = failures = 0
    while done < len(items):
        if failures == _MAX_FAILURES:
            yield Limit("was not examined: too many files before it could not be")
            done += 1
            continue
        pid, pipe = _start(function, items[done:], seconds, megabytes)
        try:
            for line in _lines(pipe, len(items) - done, seconds * _WALL):
                yield msgspec.json.decode(line, type=result)
                done += 1
        except (_LostError, msgspec.MsgspecError) as lost:
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
            pid = 0
            yield Limit(_reason(status, str(lost)))
            done += 1
            failures += 1
        finally:
            os.close(pipe)
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def examine_one(
    function: Callable[[Item], Result], item: Item, result: type[Result], **limits: int
) -> Result | Limit:
    """`examine` of a single item."""
    return next(iter(examine(function, [item], result, **limits)))


def _start(
    function: Callable[[Item], Any], items: Sequence[Item], seconds: int, megabytes: int
) -> tuple[int, int]:
    """The child's pid, and the end of the pipe that its results come out of."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    _work(function, items, seconds, megabytes, writer)


def _work(
    function: Callable[[Item], Any],
    items: Sequence[Item],
    seconds: int,
    megabytes: int,
    writer: int,
) -> NoReturn:
    """The child: one line a result, until an item is too much."""
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):  # libraries that panic must not write to the user's terminal
            os.dup2(nowhere, descriptor)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[0])
        room = pages * resource.getpagesize() + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        for item in items:
            used = resource.getrusage(resource.RUSAGE_SELF)
            limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
            try:
                line = msgspec.json.encode(function(item))
            except MemoryError:
                line = b"!needs more memory than the audit grants"
            except BaseException as error:  # also the panics of Rust, which are no Exceptions
                line = b"!failed with " + type(error).__name__.encode()
            _write(writer, line + b"\n")
            if line.startswith(b"!"):
                break
    finally:
        os._exit(0)


def _write(writer: int, line: bytes) -> None:
    view = memoryview(line)
    while view:
        view = view[os.write(writer, view) :]


def _lines(pipe: int, count: int, seconds: float) -> Iterator[bytes]:
    """That many lines from the child; _LostError when it ends before, or is silent for too long."""
    buffer = bytearray()
    while count:
        end = buffer.find(b"\n")
        if end >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            if line.startswith(b"!"):
                raise _LostError(line[1:].decode())
            yield line
            count -= 1
            continue
        if len(buffer) > _MAX_LINE:
            raise _LostError("gives more than can be reported")
        if not select.select([pipe], [], [], seconds)[0]:
            raise _LostError("takes more time than the audit grants")
        part = os.read(pipe, 1 << 16)
        if not part:
            raise _LostError("")
        buffer += part


def _reason(status: int, said: str) -> str:
    if said:
        return said
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        return "takes more time than the audit grants"
    return "crashes the program that reads it"
