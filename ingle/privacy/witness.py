"""Who listens outside while the seal is attacked: a process that is not sealed.

It has a listener of every kind, a folder, a memory and sockets to steal, and reports which attempts
it heard. Every attempt sends its own mark, so hearing one says which. It is forked before the seal
closes and talks with the attackers' side over a stream pair that was made before, too.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import selectors
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_QUIET_SECONDS = 0.03  # what was sent on this machine has arrived by then
_MEMORY_BYTES = 256
_SIGNALS = {signal.SIGUSR1: "signal", signal.SIGUSR2: "signal by descriptor"}
_MARK = re.compile(rb"<ingle attack: ([^<>]+)>")
# attempts on a file that leave no text: the file, and how it looks if nothing came of it
_CHANGES: tuple[tuple[str, str, Callable[[os.stat_result], bool]], ...] = (
    ("file mode", "mode", lambda state: state.st_mode & 0o777 == 0o600),
    ("file truncated", "truncate", lambda state: state.st_size > 0),
    ("file deleted", "delete", lambda state: True),
)
BAIT = ("listener", "accepted", "datagram", "terminal", "network")


def mark(name: str) -> bytes:
    """What an attempt tries to get out."""
    return f"<ingle attack: {name}>".encode()


@dataclass(frozen=True)
class Places:
    """Where the witness can be reached; a port of 0 is a kind this machine does not have."""

    pid: int
    folder: str
    abstract: str
    memory: int
    stealable: int
    tcp4: int
    tcp6: int
    udp4: int
    udp6: int
    udplite: int
    own_address: str
    own_port: int

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"


class Witness:
    """The handle on a witness: made before the seal, used after it, ended by `close`."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.pid = os.fork()
        if self.pid == 0:
            self._channel.close()
            try:
                _Outside(theirs).serve()
            finally:
                os._exit(0)
        theirs.close()
        self._reader = self._channel.makefile("rb")
        self.places = Places(**json.loads(self._reader.readline()))

    def heard(self) -> set[str]:
        """Names of the attempts whose marks arrived, once nothing more arrives."""
        return set(self._ask("heard"))

    def forget(self) -> None:
        """Start anew: nothing heard, files as they were."""
        self._ask("forget")

    def bait(self) -> dict[str, int]:
        """Sockets of the machine's own network, that network and a terminal, as a careless parent
        would leave them open."""
        self._channel.sendall(b"bait\n")
        _, found, _, _ = socket.recv_fds(self._channel, 1, len(BAIT))
        return dict(zip(BAIT, found, strict=True))

    def close(self) -> None:
        """End it; its files go, too."""
        self._reader.close()
        self._channel.close()
        os.waitpid(self.pid, 0)

    def _ask(self, what: str) -> Any:
        self._channel.sendall(what.encode() + b"\n")
        return json.loads(self._reader.readline())


class _Outside:
    """The witness itself."""

    def __init__(self, channel: socket.socket) -> None:
        os.setsid()  # Ctrl-C is for the command
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.channel = channel
        self.folder = Path(tempfile.mkdtemp(prefix="ingle-prove-"))
        self.memory = ctypes.create_string_buffer(_MEMORY_BYTES)
        self.selector = selectors.DefaultSelector()
        self.sounds: set[str] = set()
        for number in _SIGNALS:
            signal.signal(number, lambda n, _: self.sounds.add(_SIGNALS[signal.Signals(n)]))
        self.texts: dict[int, bytes] = {}
        self.keep: list[socket.socket] = []
        self.terminal, self.keyboard = os.openpty()
        self.network = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.places = self._open()
        self._lay_files()

    def _open(self) -> Places:
        abstract = f"ingle-prove-{os.urandom(8).hex()}"
        own = _own_address()
        unix, stream, datagram = socket.AF_UNIX, socket.SOCK_STREAM, socket.SOCK_DGRAM
        self._listen(unix, stream, f"{self.folder}/stream")
        self._listen(unix, datagram, f"{self.folder}/datagram")
        self._listen(unix, stream, f"\0{abstract}-stream")
        self._listen(unix, datagram, f"\0{abstract}-datagram")
        os.mkfifo(self.folder / "pipe")
        pipe = os.open(self.folder / "pipe", os.O_RDWR | os.O_NONBLOCK)
        self.selector.register(pipe, selectors.EVENT_READ, None)
        udp4 = self._listen(socket.AF_INET, datagram, ("127.0.0.1", 0))
        stealable = socket.socket(socket.AF_INET, datagram)
        stealable.connect(("127.0.0.1", udp4))
        self.keep.append(stealable)
        return Places(
            pid=os.getpid(),
            folder=str(self.folder),
            abstract=abstract,
            memory=ctypes.addressof(self.memory),
            stealable=stealable.fileno(),
            tcp4=self._listen(socket.AF_INET, stream, ("127.0.0.1", 0)),
            tcp6=self._listen(socket.AF_INET6, stream, ("::1", 0)),
            udp4=udp4,
            udp6=self._listen(socket.AF_INET6, datagram, ("::1", 0)),
            udplite=self._listen(socket.AF_INET, datagram, ("127.0.0.1", 0), 136),
            own_address=own,
            own_port=self._listen(socket.AF_INET, stream, (own, 0)) if own else 0,
        )

    def _listen(self, family: int, kind: int, address: Any, protocol: int = 0) -> int:
        """Listen there, if this machine has the kind; the port."""
        try:
            one = socket.socket(family, kind, protocol)
            one.bind(address)
        except OSError:
            return 0
        if kind == socket.SOCK_STREAM:
            one.listen()
        one.setblocking(False)
        self.keep.append(one)
        self.selector.register(one, selectors.EVENT_READ, one)
        return 0 if family == socket.AF_UNIX else int(one.getsockname()[1])

    def _lay_files(self) -> None:
        for name in ("append", "truncate", "mode", "attribute", "delete", "move", "handle"):
            path = self.folder / name
            path.write_bytes(b"as it was")
            path.chmod(0o600)

    def serve(self) -> None:
        """Listen until the channel closes."""
        try:
            self._say(asdict(self.places))
            self.selector.register(self.channel, selectors.EVENT_READ, self.channel)
            while self._turn(None):
                pass
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _turn(self, timeout: float | None) -> bool:
        """Take what has come; False once there is nobody left to ask."""
        for key, _ in self.selector.select(timeout):
            if key.fileobj is self.channel:
                if not self._answer():
                    return False
            else:
                self._take(key)
        return True

    def _answer(self) -> bool:
        asked = self.channel.recv(64).strip().decode()
        if asked == "bait":
            self._give_bait()
        elif asked == "forget":
            self.sounds.clear()
            self.texts.clear()
            ctypes.memset(self.memory, 0, _MEMORY_BYTES)
            for path in self.folder.iterdir():
                if not path.is_fifo() and not path.is_socket():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            self._lay_files()
            self._say([])
        elif asked == "heard":
            self.selector.unregister(self.channel)
            while self.selector.select(_QUIET_SECONDS):
                self._turn(0)
            self.selector.register(self.channel, selectors.EVENT_READ, self.channel)
            everything = b"\0".join([*self.texts.values(), self.memory.raw, *self._files()])
            marks = {found.decode() for found in _MARK.findall(everything)}
            self._say(sorted(marks | self.sounds))
        return asked != ""

    def _say(self, answer: Any) -> None:
        self.channel.sendall(json.dumps(answer).encode() + b"\n")

    def _take(self, key: selectors.SelectorKey) -> None:
        one = key.fileobj
        try:
            if isinstance(one, socket.socket) and _accepts(one):
                accepted, _ = one.accept()
                accepted.setblocking(False)
                self.selector.register(accepted, selectors.EVENT_READ, accepted)
                self.keep.append(accepted)
                return
            text = one.recv(4096) if isinstance(one, socket.socket) else os.read(key.fd, 4096)
        except OSError:
            text = b""
        stream = isinstance(one, socket.socket) and one.type == socket.SOCK_STREAM
        if not text and stream:
            self.selector.unregister(one)
        self.texts[key.fd] = self.texts.get(key.fd, b"") + text

    def _give_bait(self) -> None:
        """A listener, one of its connections, an unused datagram socket, a terminal."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.socket()
            client.connect(listener.getsockname())
            self.keep.append(client)
            accepted, _ = listener.accept()
            with accepted, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
                given = [listener.fileno(), accepted.fileno(), datagram.fileno(), self.keyboard]
                socket.send_fds(self.channel, [b"!"], [*given, self.network])

    def _files(self) -> list[bytes]:
        """All that the folder's files say: names, contents, attributes; what was done to them."""
        found = []
        for path in self.folder.iterdir():
            found.append(os.fsencode(path.name))
            if path.is_symlink():
                found.append(os.fsencode(path.readlink()))
            elif path.is_file():
                found.append(path.read_bytes())
                with suppress(OSError):
                    found += [os.getxattr(path, name) for name in os.listxattr(path)]
        for name, file, untouched in _CHANGES:
            path = self.folder / file
            if not path.exists() or not untouched(path.stat()):
                found.append(mark(name))
        return found


def _accepts(one: socket.socket) -> bool:
    return one.type == socket.SOCK_STREAM and bool(
        one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )


def _own_address() -> str:
    """This machine's address towards others; nothing is sent to learn it. Empty without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(one.getsockname()[0])
