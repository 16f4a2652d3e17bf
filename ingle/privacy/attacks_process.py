"""Attempts with other processes, other programs and the kernel itself."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import threading
from collections.abc import Sequence
from struct import pack

from ingle.privacy.attacks_network import tcp4
from ingle.privacy.attempt import Attack, Field, each
from ingle.privacy.filter import TIOCCONS, TIOCLINUX, TIOCSETD
from ingle.privacy.syscalls import LAST, call

_SEIZE = 0x4206
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_SCRIPT = b"#!/bin/sh\nexit 0\n"
_X32 = 0x40000000


def trace(field: Field) -> None:
    """another process, taken over by ptrace"""
    call("ptrace", _SEIZE, field.at.pid, 0, 0)


def _vector(text: ctypes.Array, size: int) -> ctypes.Array:
    return ctypes.create_string_buffer(pack("@PN", ctypes.addressof(text), size))


def _at(address: int, size: int) -> ctypes.Array:
    return ctypes.create_string_buffer(pack("@PN", address, size))


def write_memory(field: Field) -> None:
    """the memory of another process, written"""
    text = ctypes.create_string_buffer(field.mark)
    size = len(field.mark)
    theirs = _at(field.at.memory, size)
    call("process_vm_writev", field.at.pid, _vector(text, size), 1, theirs, 1, 0)


def read_memory(field: Field) -> None:
    """the memory of another process, read"""
    text = ctypes.create_string_buffer(16)
    call("process_vm_readv", field.at.pid, _vector(text, 16), 1, _at(field.at.memory, 16), 1, 0)


def steal_socket(field: Field) -> None:
    """another process's connected socket, copied"""
    process = call("pidfd_open", field.at.pid, 0)
    os.write(call("pidfd_getfd", process, field.at.stealable, 0), field.mark)


def send_signal(field: Field) -> None:
    """a signal to another process"""
    os.kill(field.at.pid, signal.SIGUSR1)


def signal_by_descriptor(field: Field) -> None:
    """a signal through a process descriptor"""
    process = call("pidfd_open", field.at.pid, 0)
    call("pidfd_send_signal", process, signal.SIGUSR2, None, 0)


def other_signals(field: Field) -> None:
    """a signal by one of the other calls"""
    queued = ctypes.create_string_buffer(pack("=3i", 0, 0, -1) + bytes(116))  # SI_QUEUE
    pid = field.at.pid
    each(lambda way: way(), (
        lambda: call("tgkill", pid, pid, 0),
        lambda: call("tkill", pid, 0),
        lambda: call("rt_sigqueueinfo", pid, 0, queued),
        lambda: call("rt_tgsigqueueinfo", pid, pid, 0, queued),
    ))  # fmt: skip


def join_network(field: Field) -> None:
    """the network namespace of another process"""
    call("setns", field.bait["network"], 0)


def new_network(field: Field) -> None:
    """a network of its own, with rights in it"""
    call("unshare", _NEW_USER | _NEW_NET)


def new_network_by_clone(field: Field) -> None:
    """the same for a new child"""
    if call("clone", _NEW_USER | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        os._exit(0)


def clone3(field: Field) -> None:
    """a child by the newer call, whose flags no filter can read"""
    arguments = ctypes.create_string_buffer(pack("=Q3Q Q3Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0))
    if call("clone3", arguments, 64) == 0:
        os._exit(0)


def child(field: Field) -> None:
    """a TCP connection from a child process"""
    reader, writer = os.pipe()
    if os.fork() == 0:
        code = 0
        try:
            tcp4(field)
        except OSError as error:
            code = error.errno or 255
        os.write(writer, bytes([code]))
        os._exit(0)
    if code := os.read(reader, 1)[0]:
        raise OSError(code, os.strerror(code))


def thread(field: Field) -> None:
    """a TCP connection from a thread"""
    errors: list[OSError] = []

    def run() -> None:
        try:
            tcp4(field)
        except OSError as error:
            errors.append(error)

    one = threading.Thread(target=run)
    one.start()
    one.join()
    if errors:
        raise errors[0]


def program(field: Field) -> None:
    """another program that connects"""
    code = (
        "import contextlib, socket\n"
        "with contextlib.suppress(OSError):\n"
        f"    one = socket.create_connection(('127.0.0.1', {field.at.tcp4}))\n"
        f"    one.sendall({field.mark!r})"
    )
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", code])


def program_in_memory(field: Field) -> None:
    """a program that exists in memory only"""
    file = os.memfd_create("ingle-prove", 0)
    os.write(file, _SCRIPT)
    os.execve(file, ["ingle-prove"], {})


def ring(field: Field) -> None:
    """an io_uring, whose calls no filter sees"""
    os.close(call("io_uring_setup", 4, ctypes.create_string_buffer(120)))


def enter_ring(field: Field) -> None:
    """the calls of an io_uring that was made before"""
    call("io_uring_enter", -1, 0, 0, 0, 0, 0)


def register_ring(field: Field) -> None:
    """the same, its settings"""
    call("io_uring_register", -1, 0, 0, 0)


def kernel_program(field: Field) -> None:
    """a program inside the kernel (bpf)"""
    array_map = ctypes.create_string_buffer(pack("=4I", 2, 4, 4, 1) + bytes(104))
    os.close(call("bpf", 0, array_map, 120))


def watch_files(field: Field) -> None:
    """everyone's file accesses (fanotify)"""
    os.close(call("fanotify_init", 0, 0))


def dumpable(field: Field) -> None:
    """its memory, opened to other processes and core files again"""
    call("prctl", 4, 1, 0, 0, 0)


def tracer(field: Field) -> None:
    """leave to others to take it over"""
    call("prctl", 0x59616D61, -1, 0, 0, 0)


def other_terminal_calls(field: Field) -> None:
    """other ways of commanding a terminal"""
    each(lambda request: call("ioctl", -1, request, 0), (TIOCLINUX, TIOCCONS, TIOCSETD))


def x32(field: Field) -> None:
    """a socket by the numbers of x86_64's other convention"""
    os.close(call(_X32 | 41, 2, 1, 0))


def thirty_two_bit(field: Field) -> None:
    """a socket by the calls of 32-bit programs"""
    # push rbx; eax = 359 (socket); ebx = 2; ecx = 1; edx = 0; int 0x80; pop rbx; ret
    code = bytes.fromhex("53b867010000bb02000000b90100000031d2cd805bc3")
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    result = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    if result < 0:
        raise OSError(-result, os.strerror(-result))


def void_calls(names: Sequence[str], field: Field) -> None:
    """each call that is refused whatever it asks, with arguments that do no harm"""
    os.setsid()  # vhangup should find no terminal
    each(lambda name: call(name, *_VOID.get(name, (-1,) * 6)), names)


def later_calls(field: Field) -> None:
    """a call that is newer than the filter"""
    call(LAST + 1, -1, -1, -1, -1, -1, -1)


PROCESS = (
    Attack("ptrace", trace),
    Attack("memory written", write_memory),
    Attack("memory read", read_memory),
    Attack("socket stolen", steal_socket),
    Attack("signal", send_signal),
    Attack("signal by descriptor", signal_by_descriptor),
    Attack("other signals", other_signals),
    Attack("network joined", join_network, bait=True),
    Attack("network made", new_network),
    Attack("network made by clone", new_network_by_clone),
    Attack("clone3", clone3, ("ENOSYS",)),
    Attack("child process", child),
    Attack("thread", thread),
    Attack("program", program),
    Attack("program in memory", program_in_memory),
    Attack("io_uring", ring, ("ENOSYS",)),
    Attack("io_uring, calls", enter_ring, ("ENOSYS",)),
    Attack("io_uring, settings", register_ring, ("ENOSYS",)),
    Attack("bpf", kernel_program),
    Attack("fanotify", watch_files),
    Attack("dumpable", dumpable),
    Attack("tracer", tracer),
    Attack("other terminal calls", other_terminal_calls),
    Attack("newer calls", later_calls, ("ENOSYS",)),
)
X86_64 = (
    Attack("x32 calls", x32, ("ENOSYS",)),
    Attack("32-bit calls", thirty_two_bit, ("SIGSYS",)),
)
# where -1 could do something: names nothing has
_VOID: dict[str, tuple[int, ...]] = {"msgget": (0x494E474C, 0), "semget": (0x494E474C, 0, 0)}
