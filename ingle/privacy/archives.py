"""What a file of weights in another format than safetensors holds: pickles, archives, arrays.

Nothing is unpacked to disk or loaded. Archives and compressed files are opened in memory, some
levels deep, and every pickle found in them is walked (pickles.py).
"""

from __future__ import annotations

import ast
import bz2
import gzip
import io
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from typing import BinaryIO

from ingle.privacy.facts import CodeFact, Finding, Seen, Severity, text_of
from ingle.privacy.folder import Entry
from ingle.privacy.kinds import kind_of
from ingle.privacy.pickles import SENTENCES, Walk, walk_pickle
from ingle.privacy.reach import reach_of_import

_MAX_DEPTH = 4
_MAX_MEMBERS = 20_000
_MAX_MEMBER = 32 << 20  # bytes of a member that is opened, or of a file once unpacked
_MAX_TRAILING = 16  # pickles after the first
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch's magic number, a pickle of its own
_STORAGE = re.compile(
    r"[^/]+/(\.?data/[^/]+|version|byteorder|\.format_version|\.storage_alignment)"
)
_OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}

HOLDING = frozenset(
    ("pickle", "numpy", "archive", "compressed", "keras", "torchscript", "unknown", "sentencepiece")
)
"""Kinds whose content is looked into."""


def examine_holding(entry: Entry) -> Seen:
    """The code and the findings of one file of a kind in HOLDING."""
    assert entry.source is not None
    report = _Report(entry.path)
    descriptor = os.open(entry.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        report.look(stream, entry.bytes, entry.kind, 0)
    return report.seen()


class _Report:
    """Collects what is found in one file of the folder, however deep."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.walk = Walk()
        self.pickles = 0
        self.found: dict[str, tuple[Severity, str]] = {}
        self.unpacked = 0

    def add(self, finding: str, severity: Severity, sentence: str) -> None:
        self.found.setdefault(finding, (severity, sentence))

    def seen(self) -> Seen:
        walk = self.walk
        code: tuple[CodeFact, ...] = ()
        for odd in sorted(walk.odd):
            self.add(odd, "refuse", f"Holds a pickle that {SENTENCES[odd]}.")
        if self.pickles and not walk.odd:
            sentence = "Holds pickles without any call outside the list; they are never loaded."
            self.add("pickle.data", "note", sentence)
        if walk.odd:
            reach = {reach_of_import(name) for name in walk.names} - {None}
            code = (
                CodeFact(
                    file=self.path,
                    kind="pickle",
                    imports=_some(walk.names),
                    calls=_some(walk.calls - {""}),
                    reach=tuple(sorted(filter(None, reach))),
                    sentence="Loading this pickle runs what it names. ingle never loads one.",
                ),
            )
        findings = tuple(
            Finding(id=name, severity=severity, file=self.path, sentence=sentence)
            for name, (severity, sentence) in sorted(self.found.items())
        )
        return Seen(code=code, findings=findings)

    def look(self, stream: BinaryIO, size: int, kind: str, depth: int) -> None:
        """Look into a stream of `size` bytes, which the name says is of this kind."""
        if depth > _MAX_DEPTH:
            self.add("archive.deep", "refuse", "Archives in archives, deeper than is looked into.")
            return
        head = stream.read(512)
        stream.seek(max(0, size - 512))
        tail = stream.read(512)
        stream.seek(0)
        opener = next((_OPENERS[m] for m in _OPENERS if head.startswith(m)), None)
        if head[:1] == b"\x80" and head[1:2] <= b"\x05" and len(head) > 1:
            self._pickles(stream, size)
        elif head.startswith(b"\x93NUMPY"):
            self._array(stream, size)
        elif head[:2] == b"PK" or b"PK\x05\x06" in tail:
            self._zip(stream, depth)
        elif head[257:262] == b"ustar":
            self._tar(stream, depth)
        elif opener is not None or kind == "compressed":
            self._unpack(opener, stream, kind, depth)
        elif kind == "archive":
            self.add("archive.unknown", "refuse", "An archive of a kind that is not opened.")
        elif size:
            self._maybe_pickle(stream, size, kind)

    def _pickles(self, stream: BinaryIO, size: int) -> None:
        """One pickle; with torch's magic number first, the five of its old format."""
        legacy = stream.read(len(_LEGACY)) == _LEGACY
        if not legacy:
            stream.seek(0)
        self.walk.storages |= legacy
        for _ in range(4 if legacy else 1):
            self._pickle(stream, size)
        if legacy or stream.tell() == size or "pickle.malformed" in self.walk.odd:
            return  # raw numbers follow
        self.walk.odd.add("pickle.trailing")
        for _ in range(_MAX_TRAILING):
            if stream.tell() == size:
                return
            self._pickle(stream, size)

    def _pickle(self, stream: BinaryIO, size: int) -> None:
        self.pickles += 1
        walk_pickle(stream, size, self.walk)

    def _maybe_pickle(self, stream: BinaryIO, size: int, kind: str) -> None:
        """Old pickles begin with nothing of their own: is this one?"""
        trial = Walk(storages=self.walk.storages)
        walk_pickle(stream, size, trial)
        if "pickle.malformed" not in trial.odd or trial.names:
            stream.seek(0)
            self._pickles(stream, size)
        elif kind in ("pickle", "numpy"):
            self.walk.odd.add("pickle.malformed")

    def _array(self, stream: BinaryIO, size: int) -> None:
        """An array: numbers, or Python objects in a pickle behind the header."""
        major = stream.read(8)[6:7]
        width = 2 if major == b"\x01" else 4
        length = int.from_bytes(stream.read(width), "little")
        text = stream.read(min(length, 1 << 16)).decode("latin-1")
        try:
            header = ast.literal_eval(text.strip())
            plain = isinstance(header["descr"], str) and "O" not in header["descr"]
        except (ValueError, SyntaxError, TypeError, KeyError, RecursionError):
            self.add("numpy.damaged", "refuse", "The header of an array cannot be read.")
            return
        if not plain and "O" in repr(header["descr"]):
            self.add("numpy.objects", "refuse", "An array of Python objects: a pickle.")
            self._maybe_pickle(io.BytesIO(stream.read(_MAX_MEMBER)), size - stream.tell(), "pickle")

    def _zip(self, stream: BinaryIO, depth: int) -> None:
        try:
            with zipfile.ZipFile(stream) as archive:
                members = archive.infolist()
                self._members([member.filename for member in members])
                if members and min(member.header_offset for member in members) != 0:
                    self.add("archive.prefix", "refuse", "An archive behind other bytes.")
                torch = any(re.fullmatch(r"[^/]+/data\.pkl", m.filename) for m in members)
                self.walk.storages |= torch
                for member in members[:_MAX_MEMBERS]:
                    self._member(archive, member, torch, depth)
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError):
            self.add("archive.damaged", "refuse", "An archive that cannot be read to its end.")

    def _member(
        self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, torch: bool, depth: int
    ) -> None:
        raw = torch and member.compress_type == zipfile.ZIP_STORED
        if member.is_dir() or (raw and _STORAGE.fullmatch(member.filename)):
            return  # the numbers of a tensor, which torch reads as such
        if member.flag_bits & 1:
            self.add("archive.encrypted", "refuse", "Holds an encrypted file.")
            return
        if member.file_size > _MAX_MEMBER or member.file_size > 1000 * (member.compress_size + 64):
            self.add("archive.bomb", "refuse", "Holds a file that grows beyond all measure.")
            return
        try:
            content = archive.read(member)
        except (
            zipfile.BadZipFile,
            RuntimeError,
            NotImplementedError,
            zlib.error,
            OSError,
            EOFError,
        ):
            self.add("archive.damaged", "refuse", "Holds a file that cannot be read as announced.")
            return
        self._content(member.filename, content, depth)

    def _tar(self, stream: BinaryIO, depth: int) -> None:
        names: list[str] = []
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for member in archive:
                    names.append(member.name)
                    if len(names) > _MAX_MEMBERS:
                        break
                    if not (member.isreg() or member.isdir()):
                        self.add("archive.link", "refuse", "Holds links or devices.")
                    elif member.size > _MAX_MEMBER:
                        self.add("archive.bomb", "refuse", "Holds a file too large to look into.")
                    elif member.isreg() and (file := archive.extractfile(member)):
                        self._content(member.name, file.read(_MAX_MEMBER), depth)
        except (tarfile.TarError, ValueError, OSError, EOFError):
            self.add("archive.damaged", "refuse", "An archive that cannot be read to its end.")
        self._members(names)

    def _members(self, names: list[str]) -> None:
        if len({name.casefold() for name in names}) < len(names):
            self.add("archive.twice", "refuse", "Holds the same name twice, but perhaps for case.")
        if any(n.startswith("/") or "\\" in n or ".." in n.split("/") for n in names):
            self.add("archive.path", "refuse", "Holds names that lead out of the archive.")
        if len(names) > _MAX_MEMBERS:
            self.add("archive.many", "refuse", f"Holds over {_MAX_MEMBERS} files.")

    def _content(self, name: str, content: bytes, depth: int) -> None:
        """One member; all of them together may take as much as 16 of the largest."""
        self.unpacked += len(content)
        if self.unpacked > 16 * _MAX_MEMBER:
            self.add("archive.bomb", "refuse", "Unpacks to more than is looked into.")
            return
        kind = kind_of(text_of(name), content[:512], content[-512:], len(content))
        if kind in ("python", "script", "executable", "bytecode"):
            self.add("archive.code", "refuse", "Holds program code.")
        elif kind in HOLDING:
            self.look(io.BytesIO(content), len(content), kind, depth + 1)

    def _unpack(self, opener: object, stream: BinaryIO, kind: str, depth: int) -> None:
        if not callable(opener):
            self.add("archive.unknown", "refuse", "Compressed in a way that is not opened.")
            return
        try:
            with opener(stream) as unpacked:
                content = unpacked.read(_MAX_MEMBER + 1)
        except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError):
            self.add("archive.damaged", "refuse", "Compressed data that cannot be read.")
            return
        if len(content) > _MAX_MEMBER:
            self.add("archive.bomb", "refuse", "Unpacks to more than is looked into.")
        self.look(io.BytesIO(content), len(content), "pickle", depth + 1)


def _some(names: set[str]) -> tuple[str, ...]:
    """Names for a report: sorted, not endless, each short."""
    return tuple(text_of(name[:200]) for name in sorted(names)[:100])
