"""Seccomp filters: rules as data, a dozen lines of assembler, and the call that installs them.

A filter is a program of the kernel's classic BPF that reads the number and the arguments of every
system call. Ours tests one call number after the other; the rules of `filter.py` say which and what
then. Sources: the kernel's Documentation/userspace-api/seccomp_filter.rst and
include/uapi/linux/{bpf_common,seccomp,audit}.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack

from ingle.privacy.syscalls import LAST, call, number

# Operations of classic BPF: load a word of the call, mask it, jump if equal or above, return.
_LOAD, _AND, _IF_EQUAL, _IF_ABOVE, _RETURN = 0x20, 0x54, 0x15, 0x25, 0x06
# Where the kernel puts what: struct seccomp_data.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

ALLOW, KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000  # set in the numbers of x86_64's other calling convention

EPERM, ENOSYS = 1, 38
_SET_MODE_FILTER, _ALL_THREADS = 1, 1

Instruction = tuple[int, int, int, int]  # operation, steps to skip if true, if false, constant


@dataclass(frozen=True)
class Test:
    """Whether half of an argument, under a mask, equals a value (or, `differs`, does not).

    half: 0 for the low 32 bits, all the kernel looks at in an int; 1 for the high ones.
    """

    __test__ = False  # for pytest

    argument: int
    value: int
    mask: int = 0xFFFFFFFF
    differs: bool = False
    half: int = 0


@dataclass(frozen=True)
class Rule:
    """Calls that get an error for an answer, unless all tests of one of the ways out hold."""

    name: str
    calls: tuple[str, ...]
    why: str
    unless: tuple[tuple[Test, ...], ...] = ()
    error: int = EPERM


def assemble(rules: Sequence[Rule], architecture: str, last: int = LAST) -> list[Instruction]:
    """The program for a filter.

    A process that calls by another architecture's convention is killed: its numbers mean something
    else. x32 numbers, and numbers above `last`, which this program cannot judge, do not exist.
    """
    missing = (_RETURN, 0, 0, _ERRNO | ENOSYS)
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, AUDIT[architecture]),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_ABOVE, 0, 1, last),  # every x32 number is above, too
        missing,
    ]
    for rule in rules:
        answer = _answer(rule)
        for name in rule.calls:
            if (nr := number(name, architecture)) is not None:
                program += [(_IF_EQUAL, 0, len(answer), nr), *answer]
    return [*program, (_RETURN, 0, 0, ALLOW)]


def _answer(rule: Rule) -> list[Instruction]:
    """What is done with a call of a rule; every path through it returns."""
    answer: list[Instruction] = []
    for tests in rule.unless:
        way: list[Instruction] = [(_RETURN, 0, 0, ALLOW)]
        for test in reversed(tests):
            skip = (len(way), 0) if test.differs else (0, len(way))
            offset = _ARGUMENTS + 8 * test.argument + 4 * test.half
            way = [(_LOAD, 0, 0, offset), (_AND, 0, 0, test.mask),
                   (_IF_EQUAL, *skip, test.value), *way]  # fmt: skip
        answer += way
    return [*answer, (_RETURN, 0, 0, _ERRNO | rule.error)]


def install(program: Sequence[Instruction]) -> None:
    """Put all threads of this process, and whatever it starts, under a filter, for good.

    Needs no_new_privs. Raises OSError where the kernel has no such filters.
    """
    code = ctypes.create_string_buffer(b"".join(pack("=HBBI", *step) for step in program))
    header = pack("@HP", len(program), ctypes.addressof(code))
    thread = call("seccomp", _SET_MODE_FILTER, _ALL_THREADS, header)
    if thread:
        raise OSError(EPERM, "a thread could not be put under the filter")
