"""Every entry of a model folder and what kind of thing it is, without trusting a name.

Links are followed where they stay inside the folder, or lead from a snapshot of a Hugging Face
cache to the blobs beside it. Pipes, devices and folders behind links are named, never opened.
"""

from __future__ import annotations

import json
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingle.privacy.facts import Finding, Severity, text_of
from ingle.privacy.kinds import kind_of

_MAX_ENTRIES = 10_000  # the largest releases have some hundred
_MAX_DEPTH = 16
_SPARSE = 1 << 26  # bytes from which a file that takes no room on the disk is suspicious
_HEAD = 512
_MAX_OBJECT = 4 << 20  # of a small JSON file


@dataclass(frozen=True)
class Entry:
    """One entry. source: the real file to open, None where there is nothing to read."""

    path: str
    source: Path | None
    bytes: int
    kind: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def list_folder(folder: Path) -> tuple[list[Entry], list[Finding]]:
    """All entries, sorted by path, and what is odd about them."""
    home = folder.resolve()
    homes = [home]
    if home.parent.name == "snapshots":
        homes.append(home.parent.parent / "blobs")
    entries: list[Entry] = []
    findings: list[Finding] = []
    for path, status in _walk(home):
        if len(entries) == _MAX_ENTRIES:
            findings.append(
                _finding("file.many", "refuse", "", f"The folder has over {_MAX_ENTRIES} entries.")
            )
            break
        relative = os.fspath(path.relative_to(home))
        entry, finding = _entry(path, text_of(relative), status, homes)
        entries.append(entry)
        if finding is not None:
            findings.append(finding)
    entries.sort(key=lambda entry: entry.path)
    return entries, findings + list(_names(entries))


def read_file(source: Path, count: int, offset: int = 0) -> bytes:
    """At most `count` bytes of a regular file; b"" where it is none, or cannot be read."""
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        file.seek(offset)
        return file.read(count)


def read_object(folder: Path, paths: Container[str], path: str) -> dict[str, Any]:
    """A JSON object of a folder, {} where there is none; its damage is found elsewhere."""
    if path not in paths:
        return {}
    try:
        value = json.loads(read_file((folder / path).resolve(), _MAX_OBJECT))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def read_tail(source: Path, count: int, size: int) -> bytes:
    """The last bytes of a file of that size."""
    return read_file(source, count, max(0, size - count))


def _walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below the folder but the folders themselves; links are not followed."""
    waiting = [(folder, 0)]
    while waiting:
        place, depth = waiting.pop()
        try:
            with os.scandir(place) as found:
                inside = sorted(
                    [(entry.name, entry.stat(follow_symlinks=False)) for entry in _some(found)],
                    key=lambda pair: pair[0],
                )
        except OSError:
            yield place, place.lstat()  # a folder that cannot be read is an entry of its own
            continue
        for name, status in inside:
            if stat.S_ISDIR(status.st_mode) and depth < _MAX_DEPTH:
                waiting.append((place / name, depth + 1))
            else:
                yield place / name, status


def _some(found: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
    """One more than is looked at: a folder of a million files must not fill the memory."""
    for _, entry in zip(range(_MAX_ENTRIES + 1), found, strict=False):
        yield entry


def _entry(
    path: Path, shown: str, status: os.stat_result, homes: list[Path]
) -> tuple[Entry, Finding | None]:
    source, mode = path, status.st_mode
    if stat.S_ISLNK(mode):
        try:
            source = path.resolve(strict=True)
            status = source.lstat()
        except (OSError, RuntimeError):  # nothing there, or a circle of links
            sentence = "A link that leads nowhere, or in a circle."
            return _odd(shown, "link", "file.link-broken", "refuse", sentence)
        if not any(source.is_relative_to(home) for home in homes):
            sentence = "A link that leads out of the folder."
            return _odd(shown, "link", "file.link-out", "refuse", sentence)
        if not stat.S_ISREG(status.st_mode):
            sentence = "A link to something that is no file; it is not followed."
            return _odd(shown, "link", "file.link", "refuse", sentence)
    elif stat.S_ISDIR(mode):
        sentence = "A folder that is too deep, or that cannot be read."
        return _odd(shown, "folder", "file.folder", "refuse", sentence)
    elif not stat.S_ISREG(mode):
        sentence = "A pipe, socket or device; who reads it may wait for ever."
        return _odd(shown, "special", "file.special", "refuse", sentence)
    size = status.st_size
    if size > _SPARSE and status.st_blocks * 512 < size // 16:
        sentence = f"Claims {size} bytes and takes {status.st_blocks * 512} on the disk."
        return _odd(shown, "sparse", "file.sparse", "refuse", sentence)
    if not os.access(source, os.R_OK):
        return _odd(shown, "unreadable", "file.unreadable", "doubt", "Cannot be read.")
    kind = kind_of(shown, read_file(source, _HEAD), read_tail(source, _HEAD, size), size)
    return Entry(shown, source, size, kind), None


def _odd(
    path: str, kind: str, finding: str, severity: Severity, sentence: str
) -> tuple[Entry, Finding]:
    return Entry(path, None, 0, kind), _finding(finding, severity, path, sentence)


def _names(entries: list[Entry]) -> Iterator[Finding]:
    """What is odd about names: equal for some file systems, invisible, hidden."""
    folded = Counter(_folded(entry.path) for entry in entries)
    for entry in entries:
        if folded[_folded(entry.path)] > 1:
            sentence = "Another name differs from it only in case or form of its letters."
            yield _finding("file.case", "refuse", entry.path, sentence)
        if not entry.path.isprintable() or "\\" in entry.path:
            sentence = "The name holds invisible characters, a backslash or bytes that are no text."
            yield _finding("file.name", "refuse", entry.path, sentence)
        elif entry.path != unicodedata.normalize("NFKC", entry.path):
            sentence = "The name is written with look-alikes of ordinary letters."
            yield _finding("file.name", "refuse", entry.path, sentence)
        if _hidden(entry.path):
            yield _finding("file.hidden", "note", entry.path, "A hidden file.")
        if entry.kind == "unknown":
            sentence = "Nothing explains this file: no known name and no known content."
            yield _finding("file.unexplained", "doubt", entry.path, sentence)


def _folded(path: str) -> str:
    return unicodedata.normalize("NFKC", path).casefold()


def _hidden(path: str) -> bool:
    """Hidden files but those that git and the hub's own download leave in every folder."""
    if path.startswith(".cache/huggingface/") or path in (".gitattributes", ".gitignore"):
        return False
    return any(part.startswith(".") for part in path.split("/"))


def _finding(name: str, severity: Severity, path: str, sentence: str) -> Finding:
    return Finding(id=name, severity=severity, file=path, sentence=sentence)
