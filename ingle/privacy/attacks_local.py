"""Attempts on this machine: sockets with names, shared objects, files."""

from __future__ import annotations

import ctypes
import os
import socket
from struct import pack

from ingle.privacy.attempt import Attack, Field
from ingle.privacy.syscalls import call

_UNIX, _STREAM, _DATAGRAM = socket.AF_UNIX, socket.SOCK_STREAM, socket.SOCK_DGRAM
_IPC_PRIVATE, _IPC_REMOVE = 0, 0
_OWN_KEYRING = -2
_AT_FDCWD = -100


def _unix_stream(field: Field, path: str) -> None:
    with socket.socket(_UNIX, _STREAM) as one:
        one.connect(path)
        one.sendall(field.mark)


def unix_stream(field: Field) -> None:
    """another program's socket, by path (container daemon, D-Bus)"""
    _unix_stream(field, field.at.path("stream"))


def abstract_stream(field: Field) -> None:
    """another program's socket, by abstract name"""
    _unix_stream(field, f"\0{field.at.abstract}-stream")


def unix_datagram(field: Field) -> None:
    """a datagram to another program's socket (system log)"""
    with socket.socket(_UNIX, _DATAGRAM) as one:
        one.sendto(field.mark, field.at.path("datagram"))


def abstract_datagram(field: Field) -> None:
    """a datagram to an abstract name"""
    with socket.socket(_UNIX, _DATAGRAM) as one:
        one.sendto(field.mark, f"\0{field.at.abstract}-datagram")


def pair_by_message(field: Field) -> None:
    """a datagram socket pair, its sendmsg addressed to another program's socket"""
    one, _ = socket.socketpair(_UNIX, _DATAGRAM)
    one.sendmsg([field.mark], [], 0, field.at.path("datagram"))


def pair_by_sendto(field: Field) -> None:
    """the same by sendto, to an abstract name"""
    one, _ = socket.socketpair(_UNIX, _DATAGRAM)
    one.sendto(field.mark, f"\0{field.at.abstract}-datagram")


def pair_of_packets(field: Field) -> None:
    """a socket pair of the third kind (SOCK_SEQPACKET)"""
    socket.socketpair(_UNIX, socket.SOCK_SEQPACKET)


def pair_of_network(field: Field) -> None:
    """a socket pair that is not local"""
    socket.socketpair(socket.AF_INET, _STREAM)


def stream_pair(field: Field) -> None:
    """an allowed socket pair, its sendmsg addressed to another program's socket"""
    one, _ = socket.socketpair(_UNIX, _STREAM)
    one.sendmsg([field.mark], [], 0, field.at.path("datagram"))


def own_fast_open(field: Field) -> None:
    """the flag of Fast Open by sendmsg, on an allowed pair"""
    one, _ = socket.socketpair(_UNIX, _STREAM)
    one.sendmsg([b"x"], [], 0x20000000)


def named_pipe(field: Field) -> None:
    """a named pipe another program reads"""
    writer = os.open(field.at.path("pipe"), os.O_WRONLY | os.O_NONBLOCK)
    os.write(writer, field.mark)


def message_queue(field: Field) -> None:
    """a message queue with a name"""
    name = f"ingle-prove-{os.getpid()}".encode()
    os.close(call("mq_open", name, os.O_CREAT | os.O_RDWR, 0o600, None))
    call("mq_unlink", name)


def old_message_queue(field: Field) -> None:
    """a System V message queue"""
    queue = call("msgget", _IPC_PRIVATE, 0o600)
    call("msgctl", queue, _IPC_REMOVE, None)


def shared_memory(field: Field) -> None:
    """System V shared memory"""
    segment = call("shmget", _IPC_PRIVATE, 4096, 0o600)
    call("shmctl", segment, _IPC_REMOVE, None)


def key_ring(field: Field) -> None:
    """a key in the kernel's key ring"""
    call("add_key", b"user\0", b"ingle-prove\0", field.mark, len(field.mark), _OWN_KEYRING)


def terminal(field: Field) -> None:
    """typing into the terminal that started the process"""
    os.setsid()
    keyboard = field.bait["terminal"]
    for request, argument in ((0x540E, 1), (0x5412, ctypes.create_string_buffer(b"x"))):
        call("ioctl", keyboard, request, argument)


def new_file(field: Field) -> None:
    """a new file outside the state folder"""
    with open(field.at.path("new"), "xb") as file:
        file.write(field.mark)


def append(field: Field) -> None:
    """a line more in another file"""
    with open(field.at.path("append"), "ab") as file:
        file.write(field.mark)


def truncate(field: Field) -> None:
    """another file, emptied"""
    os.truncate(field.at.path("truncate"), 0)


def delete(field: Field) -> None:
    """another file, deleted"""
    os.unlink(field.at.path("delete"))


def move(field: Field) -> None:
    """another file, its new name being the message"""
    os.rename(field.at.path("move"), field.at.path(field.mark.decode()))


def folder(field: Field) -> None:
    """a folder, its name being the message"""
    os.mkdir(field.at.path(field.mark.decode() + "folder"))


def link(field: Field) -> None:
    """a symbolic link, its target being the message"""
    os.symlink(field.mark, field.at.path("link"))


def mode(field: Field) -> None:
    """another file, opened to everyone"""
    os.chmod(field.at.path("mode"), 0o644)


def attribute(field: Field) -> None:
    """another file's extended attribute, being the message"""
    os.setxattr(field.at.path("attribute"), "user.ingle", field.mark)


def by_handle(field: Field) -> None:
    """another file, opened by its handle instead of its name"""
    path, handle = (
        field.at.path("handle").encode() + b"\0",
        bytearray(pack("=Ii", 128, 0) + bytes(128)),
    )
    buffer, mount = (
        (ctypes.c_char * len(handle)).from_buffer(handle),
        ctypes.create_string_buffer(4),
    )
    call("name_to_handle_at", _AT_FDCWD, path, buffer, mount, 0)
    anywhere = os.open(field.at.folder, os.O_RDONLY)
    os.write(call("open_by_handle_at", anywhere, buffer, os.O_WRONLY), field.mark)


def memory_file(field: Field) -> None:
    """the memory of another process, through its file in /proc"""
    with open(f"/proc/{field.at.pid}/mem", "r+b", buffering=0) as memory:
        os.pwrite(memory.fileno(), field.mark, field.at.memory + 128)


LOCAL = (
    Attack("Unix stream", unix_stream),
    Attack("Unix datagram", unix_datagram),
    Attack("abstract stream", abstract_stream),
    Attack("abstract datagram", abstract_datagram),
    Attack("datagram pair, sendmsg", pair_by_message),
    Attack("datagram pair, sendto", pair_by_sendto),
    Attack("packet pair", pair_of_packets),
    Attack("network pair", pair_of_network),
    # a stream's messages go to its other end, whatever address they name
    Attack("stream pair, sendmsg", stream_pair, ("EISCONN", "EOPNOTSUPP")),
    Attack("Fast Open, pair", own_fast_open),
    Attack("named pipe", named_pipe, (), layer="landlock"),
    Attack("message queue", message_queue),
    Attack("message queue, System V", old_message_queue),
    Attack("shared memory", shared_memory),
    Attack("key ring", key_ring),
    Attack("terminal", terminal, bait=True),
    Attack("new file", new_file, (), layer="landlock"),
    Attack("file appended", append, (), layer="landlock"),
    Attack("file truncated", truncate, (), layer="landlock"),
    Attack("file deleted", delete, (), layer="landlock"),
    Attack("file moved", move, (), layer="landlock"),
    Attack("folder made", folder, (), layer="landlock"),
    Attack("link made", link, (), layer="landlock"),
    Attack("file mode", mode),
    Attack("file attribute", attribute),
    Attack("file by handle", by_handle),
    Attack("memory by file", memory_file, (), layer="landlock"),
)
