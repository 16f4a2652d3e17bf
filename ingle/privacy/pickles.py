"""Read the opcodes of a pickle, which is never loaded, and hold every name and call against a list.

A pickle is a program: it names functions of any module and calls them. The walk below runs that
program on paper. Of its values it keeps strings, tuples and names; a name that is not on the list
of what a plain file of tensors needs, a call of anything else, and whatever cannot be followed to
the end, is reported. Opcodes: Lib/pickletools.py of Python; torch's names: torch/serialization.py.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import BinaryIO

_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")
_STORAGES = frozenset(
    f"torch.{kind}Storage"
    for kind in (
        *("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"),
        *("ComplexDouble", "ComplexFloat", "QUInt8", "QInt8", "QInt32"),
    )
) | {"torch.storage.UntypedStorage", "torch.UntypedStorage"}
_DTYPES = frozenset(
    f"torch.{name}"
    for name in (
        *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "bool"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
        *("complex64", "complex128"),
    )
)
_CALLABLE = frozenset(
    (
        *("collections.OrderedDict", "builtins.set", "__builtin__.set", "builtins.frozenset"),
        *("__builtin__.frozenset", "builtins.complex", "__builtin__.complex", "torch.Size"),
        *("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"),
        *("torch._utils._rebuild_parameter", "numpy.dtype", "_codecs.encode"),
        *(f"{core}.{name}" for core in _CORES for name in ("scalar", "_reconstruct")),
        *("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"),
    )
)
_BUILT = frozenset(
    ("collections.OrderedDict", "numpy.dtype", *(f"{core}._reconstruct" for core in _CORES))
)
ALLOWED = _STORAGES | _DTYPES | _CALLABLE | {"numpy.ndarray"}
"""Every name a plain file of tensors and numbers asks for."""

_FIXED = {
    b"K": 1, b"M": 2, b"J": 4, b"G": 8, b"q": 1, b"h": 1, b"r": 4, b"j": 4, b"\x80": 1,
    b"\x82": 1, b"\x83": 2, b"\x84": 4, b"\x95": 8,
}  # fmt: skip
_COUNTED = {
    b"T": 4, b"U": 1, b"X": 4, b"B": 4, b"C": 1, b"\x8a": 1, b"\x8b": 4, b"\x8c": 1,
    b"\x8d": 8, b"\x8e": 8, b"\x96": 8,
}  # fmt: skip
_TEXTS = b"TUX\x8c\x8d"
_KEPT = 1 << 16  # bytes of the longest string that is kept; longer ones are no names


class MalformedError(Exception):
    """Opcodes that no pickler writes, or that cannot be followed."""


@dataclass(frozen=True)
class Name:
    """A global name, as `module.name`."""

    text: str


@dataclass(frozen=True)
class Made:
    """What a call of an allowed name gave."""

    name: str


class _Mark:
    """The mark on the stack."""


_MARK, _OTHER = _Mark(), object()  # _OTHER: a number, a list, a dict ...


@dataclass
class Walk:
    """What one pickle does. storages: whether torch's references to storages may occur."""

    storages: bool = False
    names: set[str] = field(default_factory=set)
    calls: set[str] = field(default_factory=set)
    odd: set[str] = field(default_factory=set)
    """Ids of what is not allowed; see `SENTENCES`."""


SENTENCES = {
    "pickle.name": "asks for names that no file of tensors needs",
    "pickle.call": "calls something else than what puts tensors together",
    "pickle.state": "sets the state of something else than a dict or an array",
    "pickle.persistent": "refers to objects by ids of its own",
    "pickle.extension": "names functions by numbers of a registry",
    "pickle.malformed": "cannot be followed to its end, as no pickler writes it",
    "pickle.trailing": "is followed by more data",
}


def walk_pickle(stream: BinaryIO, size: int, walk: Walk) -> None:
    """Add one pickle to `walk`; the stream ends up behind it, `size` is where its bytes end."""
    try:
        _Machine(stream, size, walk).run()
    except (MalformedError, ValueError, IndexError, TypeError, OverflowError):
        walk.odd.add("pickle.malformed")
        stream.seek(size)


class _Machine:
    """The unpickler's stack and memo, on paper."""

    def __init__(self, stream: BinaryIO, size: int, walk: Walk) -> None:
        self.stream, self.size, self.walk = stream, size, walk
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}

    def run(self) -> None:
        while (code := self.stream.read(1)) != b".":
            if code in _FIXED:
                self._fixed(code, int.from_bytes(self._take(_FIXED[code]), "little"))
            elif code in _COUNTED:
                self._counted(code)
            elif code in b"ILFSVPcigp" and code:
                self._lines(code)
            else:
                self._plain(code)
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise MalformedError

    def _take(self, count: int) -> bytes:
        if count > self.size - self.stream.tell():
            raise MalformedError
        return self.stream.read(count)

    def _line(self) -> bytes | None:
        """The rest of a line; None for one that is too long to be a name."""
        line = self.stream.readline(_KEPT)
        long = len(line) == _KEPT
        while line and not line.endswith(b"\n"):
            line = self.stream.readline(_KEPT)
        if not line or self.stream.tell() > self.size:
            raise MalformedError
        return None if long else line[:-1]

    def _fixed(self, code: bytes, number: int) -> None:
        if code in b"KMJG":
            self.stack.append(_OTHER)
        elif code in b"qr":
            self.memo[number] = self._top()
        elif code in b"hj":
            self.stack.append(self._recall(number))
        elif code == b"\x80":
            if number > 5:
                raise MalformedError
        elif code == b"\x95":
            if number > self.size - self.stream.tell():
                raise MalformedError
        else:
            self.walk.odd.add("pickle.extension")
            self.stack.append(Name(""))

    def _counted(self, code: bytes) -> None:
        count = int.from_bytes(self._take(_COUNTED[code]), "little")
        if code in _TEXTS and count <= _KEPT:
            coding, errors = ("latin-1", "strict") if code in b"TU" else ("utf-8", "surrogatepass")
            self.stack.append(self._take(count).decode(coding, errors))
            return
        if count > self.size - self.stream.tell():
            raise MalformedError
        self.stream.seek(count, 1)
        self.stack.append(_OTHER)

    def _lines(self, code: bytes) -> None:
        line = self._line()
        if line is None and code in b"SV":
            self.stack.append(_OTHER)
        elif line is None:
            raise MalformedError
        elif code in b"ci":
            name = self._name(line.decode(), (self._line() or b"").decode())
            self.stack.append(name if code == b"c" else self._call(name, tuple(self._to_mark())))
        elif code == b"S":
            if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
                raise MalformedError
            self.stack.append(codecs.escape_decode(line[1:-1])[0].decode("latin-1"))  # type: ignore[attr-defined]
        elif code == b"V":
            self.stack.append(line.decode("raw-unicode-escape"))
        elif code == b"P":
            self.walk.odd.add("pickle.persistent")
            self.stack.append(_OTHER)
        elif code == b"p":
            self.memo[int(line)] = self._top()
        elif code == b"g":
            self.stack.append(self._recall(int(line)))
        else:
            float(line.rstrip(b"L"))
            self.stack.append(_OTHER)

    def _plain(self, code: bytes) -> None:
        pop = self._pop
        match code:
            case b"(":
                self.stack.append(_MARK)
            case b"N" | b"\x88" | b"\x89" | b"]" | b"}" | b"\x8f":
                self.stack.append(_OTHER)
            case b")":
                self.stack.append(())
            case b"0":
                self.stack.pop()  # also a mark
            case b"1":
                self._to_mark()
            case b"2":
                self.stack.append(self._top())
            case b"\x94":
                self.memo[len(self.memo)] = self._top()
            case b"t":
                self.stack.append(tuple(self._to_mark()))
            case b"\x85" | b"\x86" | b"\x87":
                items = [pop() for _ in range(code[0] - 0x84)]
                self.stack.append(tuple(reversed(items)))
            case b"l" | b"d" | b"\x91":
                self._to_mark()
                self.stack.append(_OTHER)
            case b"a":
                pop()
                self._fill()
            case b"s":
                pop(), pop()
                self._fill()
            case b"e" | b"u" | b"\x90":
                self._to_mark()
                self._fill()
            case b"\x93":
                name, module = pop(), pop()
                if not (isinstance(name, str) and isinstance(module, str)):
                    raise MalformedError  # a name that is put together while it runs
                self.stack.append(self._name(module, name))
            case b"R" | b"\x81":
                arguments = pop()
                self.stack.append(self._call(pop(), arguments))
            case b"\x92":
                pop()
                arguments = pop()
                self.stack.append(self._call(pop(), arguments))
            case b"o":
                called, *rest = self._to_mark()
                self.stack.append(self._call(called, tuple(rest)))
            case b"b":
                state = pop()
                target = self._top()
                plain = isinstance(target, Made) and target.name in _BUILT
                if not plain or (target == Made("collections.OrderedDict") and state is not _OTHER):
                    self.walk.odd.add("pickle.state")
            case b"Q":
                self._persistent(pop())
            case _:  # also the buffers of protocol 5 that lie outside, and the end of the file
                raise MalformedError

    def _persistent(self, reference: object) -> None:
        plain = (
            self.walk.storages
            and isinstance(reference, tuple)
            and len(reference) in (5, 6)
            and reference[0] == "storage"
            and isinstance(reference[1], Name)
            and reference[1].text in _STORAGES
            and isinstance(reference[2], str)
        )
        if not plain:
            self.walk.odd.add("pickle.persistent")
        self.stack.append(_OTHER)

    def _name(self, module: str, name: str) -> Name:
        found = Name(f"{module}.{name}")
        self.walk.names.add(found.text)
        if found.text not in ALLOWED or "." in name:
            self.walk.odd.add("pickle.name")
        return found

    def _call(self, called: object, arguments: object) -> object:
        """The result of a call; what is not allowed is noted, and gives something odd again."""
        name = called.text if isinstance(called, Name) else ""
        self.walk.calls.add(name)
        if not (isinstance(arguments, tuple) and name in _CALLABLE and _fits(name, arguments)):
            self.walk.odd.add("pickle.call")
        return Made(name)

    def _fill(self) -> None:
        """A list, dict or set gets items; anything else has methods of its own for that."""
        target = self._top()
        if target is not _OTHER and not isinstance(target, Made):
            self.walk.odd.add("pickle.call")

    def _recall(self, number: int) -> object:
        if number not in self.memo:
            raise MalformedError
        return self.memo[number]

    def _top(self) -> object:
        if self.stack[-1] is _MARK:
            raise MalformedError
        return self.stack[-1]

    def _pop(self) -> object:
        value = self._top()
        del self.stack[-1]
        return value

    def _to_mark(self) -> list[object]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                items = self.stack[at + 1 :]
                del self.stack[at:]
                return items
        raise MalformedError


def _fits(name: str, arguments: tuple[object, ...]) -> bool:
    """Whether an allowed function gets the arguments that a pickler gives it."""
    if name == "_codecs.encode":  # how old protocols write bytes
        return arguments[1:] in (("latin1",), ("latin-1",))
    if name.endswith("._reconstruct"):
        return arguments[:1] == (Name("numpy.ndarray"),)
    return not name.startswith("torch._utils.") or Name not in map(type, arguments)
