"""The filter program, run by an interpreter of our own on both architectures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingle.privacy.bpf import ALLOW, AUDIT, EPERM, KILL, X32, Rule, Test, assemble
from ingle.privacy.filter import rules
from ingle.privacy.syscalls import ARCHITECTURES, LAST, NUMBERS, number

PID = 4321
ENOSYS = 38


def decide(program, architecture: str, nr: int, *arguments: int, audit: int | None = None) -> int:
    """What the kernel would do with a call; the same words as the kernel's struct seccomp_data."""
    words = {0: nr, 4: AUDIT[architecture] if audit is None else audit}
    for index in range(6):
        value = arguments[index] if index < len(arguments) else 0
        words[16 + 8 * index] = value & 0xFFFFFFFF
        words[20 + 8 * index] = value >> 32 & 0xFFFFFFFF
    at = accumulator = 0
    for _ in range(len(program)):
        operation, if_true, if_false, constant = program[at]
        at += 1
        if operation == 0x20:
            accumulator = words[constant]
        elif operation == 0x54:
            accumulator &= constant
        elif operation == 0x06:
            return constant
        else:
            truth = {0x15: accumulator == constant, 0x25: accumulator > constant}[operation]
            at += if_true if truth else if_false
    raise AssertionError("a program must return")


def error(code: int) -> int:
    return 0x00050000 | code


@pytest.fixture(params=ARCHITECTURES)
def architecture(request) -> str:
    return request.param


def test_calls_of_a_rule_get_its_error_and_all_others_pass(architecture):
    refused = rules("sealed", "nothing", PID)
    program = assemble(refused, architecture)
    bare = {name: rule.error for rule in refused if not rule.unless for name in rule.calls}
    asked = {name for rule in refused if rule.unless for name in rule.calls}
    for name in NUMBERS:
        nr = number(name, architecture)
        if nr is not None and name not in asked:
            expected = error(bare[name]) if name in bare else ALLOW
            assert decide(program, architecture, nr) == expected, name
    listed = {number(name, architecture) for name in NUMBERS}
    for nr in set(range(LAST + 1)) - listed:
        assert decide(program, architecture, nr) == ALLOW


def test_numbers_of_other_worlds_and_of_the_future(architecture):
    program = assemble(rules("sealed", "nothing", PID), architecture)
    for other in (0x40000003, 0xC00000B7, 0xC000003E, 0x40000028):
        if other != AUDIT[architecture]:
            assert decide(program, architecture, 0, audit=other) == KILL
    for nr in (LAST + 1, X32, X32 | 41, 0xFFFFFFFF):
        assert decide(program, architecture, nr) == error(ENOSYS)


@pytest.mark.parametrize(
    ("name", "arguments", "passes"),
    [
        ("sendto", (3, 0, 5, 0x4000, 0, 0), True),
        ("sendto", (3, 0, 5, 0x20000000, 0, 0), False),
        ("sendto", (3, 0, 5, 0, 0x7F00_1234_0000, 16), False),
        ("sendto", (3, 0, 5, 0, 0x1_0000_0000, 16), False),
        ("sendto", (3, 0, 5, 0, 0x1000, 16), False),
        ("sendmsg", (3, 0x7F00_0000_1000, 0x4000), True),
        ("sendmsg", (3, 0x7F00_0000_1000, 0x20004000), False),
        ("sendmsg", (3, 0, 0xFFFF_FFFF_0000_0000), True),  # the kernel reads an int, too
        ("socketpair", (1, 1), True),
        ("socketpair", (1, 1 | 0o2004000), True),  # SOCK_CLOEXEC, SOCK_NONBLOCK
        ("socketpair", (1, 2), False),
        ("socketpair", (1, 2 | 0o2000000), False),
        ("socketpair", (1, 5), False),
        ("socketpair", (1 | 1 << 32, 1), True),
        ("socketpair", (2, 1), False),
        ("setsockopt", (3, 6, 1), True),
        ("setsockopt", (3, 1, 2), True),
        ("setsockopt", (3, 1, 25), False),
        ("setsockopt", (3, 0, 4), False),
        ("setsockopt", (3, 6, 30), False),
        ("clone", (0x003D0F00,), True),  # a thread
        ("clone", (0x11,), True),  # a fork
        ("clone", (0x10000011,), False),
        ("clone", (0x40000011,), False),
        ("clone", (0x00020011,), False),
        ("ioctl", (0, 0x5401), True),
        ("ioctl", (0, 0x5412), False),
        ("ioctl", (0, 0xFFFF_FFFF_0000_5412), False),
        ("prctl", (15,), True),
        ("prctl", (4, 1), False),
        ("kill", (PID, 15), True),
        ("kill", (PID + 1, 15), False),
        ("kill", (0xFFFF_FFFF_FFFF_FFFF, 9), False),
        ("tgkill", (PID, 77, 6), True),
        ("tgkill", (1, 1, 6), False),
    ],
)
def test_what_arguments_decide(architecture, name, arguments, passes):
    program = assemble(rules("sealed", "nothing", PID), architecture)
    answer = decide(program, architecture, number(name, architecture), *arguments)
    assert answer == (ALLOW if passes else error(EPERM))


@pytest.mark.parametrize(
    ("arguments", "passes"),
    [((2, 1, 0), True), ((10, 1 | 0o4000, 6), True), ((2, 1, 262), False), ((2, 2, 0), False),
     ((1, 1, 0), False), ((16, 3, 0), False), ((40, 1, 0), False), ((17, 3, 0), False)],
)  # fmt: skip
def test_a_network_of_its_own_has_tcp_only(architecture, arguments, passes):
    program = assemble(rules("private-net", "programs", PID), architecture)
    answer = decide(program, architecture, number("socket", architecture), *arguments)
    assert answer == (ALLOW if passes else error(EPERM))


def test_what_may_be_started(architecture):
    def passes(starts: str, name: str, *arguments: int) -> bool:
        program = assemble(rules("sealed", starts, PID), architecture)
        return decide(program, architecture, number(name, architecture), *arguments) == ALLOW

    assert [passes(starts, "execve") for starts in ("nothing", "children", "programs")] == [
        False, False, True]  # fmt: skip
    assert [passes(starts, "kill", 7) for starts in ("nothing", "children", "programs")] == [
        False, True, True]  # fmt: skip
    assert not any(passes(starts, "socket") for starts in ("nothing", "children", "programs"))


def test_ways_out_are_alternatives_and_tests_of_one_way_all_count():
    ways = ((Test(0, 1), Test(1, 2)), (Test(2, 3, differs=True), Test(0, 9)))
    program = assemble([Rule("x", ("ioctl",), "", ways)], "x86_64")
    for first in (1, 9, 0):
        for second in (2, 0):
            for third in (3, 0):
                passes = (first == 1 and second == 2) or (third != 3 and first == 9)
                answer = decide(program, "x86_64", 16, first, second, third)
                assert answer == (ALLOW if passes else error(EPERM))


def test_programs_are_short_and_their_jumps_too():
    for architecture in ARCHITECTURES:
        program = assemble(rules("sealed", "nothing", PID), architecture)
        assert len(program) < 4096
        assert all(0 <= skip < 256 for _, *skips, _ in program for skip in skips)


@pytest.mark.parametrize(
    ("architecture", "header", "prefix"),
    [("x86_64", "x86_64-linux-gnu/asm/unistd_64.h", "__NR_"),
     ("aarch64", "asm-generic/unistd.h", "__NR(?:3264)?_")],
)  # fmt: skip
def test_numbers_are_the_kernels(architecture, header, prefix):
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip(f"no kernel headers here ({header})")
    found = dict(re.findall(rf"#define {prefix}(\w+)\s+(\d+)", path.read_text()))
    known = {name: number(name, architecture) for name in NUMBERS}
    compared = {name: nr for name, nr in known.items() if name in found}
    assert len(compared) > 80
    assert compared == {name: int(found[name]) for name in compared}
    # what the headers lack is newer than they are, or of the other architecture
    newest = max(int(nr) for nr in found.values() if int(nr) < 600)
    assert all(nr is None or nr > newest for name, nr in known.items() if name not in found)
