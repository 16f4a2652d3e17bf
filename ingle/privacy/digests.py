"""SHA-256 of every file of a model folder, whatever lies in it.

Only regular files are opened, and only where they lie inside the folder or, in a hub cache, are
links to the `blobs` of the same repository. Pipes, devices, sockets, links that lead elsewhere or
in circles and folders behind links are listed and never opened or entered.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

import msgspec

from ingle.errors import WeightsError
from ingle.privacy.facts import FileFact, text_of
from ingle.state import state_folder

MAX_ENTRIES = 100_000
_BLOCK = 1 << 20  # stays in a core's cache between the read and the hash
_WORKERS = min(16, os.cpu_count() or 1)
# A file changed this recently may change again without a new time stamp: not remembered.
_SETTLED_NS = 2_000_000_000
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Entry:
    """One entry of a folder that is no folder. path: relative, "/" between, as the disk has it.
    real: the regular file that may be opened for it, None for anything else."""

    path: str
    real: Path | None
    bytes: int


class _StoppedError(Exception):
    """Another file failed, or a person pressed Ctrl-C."""


def hash_files(folder: Path, progress: Callable[[int, int], None] | None = None) -> list[FileFact]:
    """Every entry of the folder and the folders in it, sorted by path, hidden ones too.

    progress hears (bytes done, bytes in all), one call at a time. Digests of files that have not
    changed since they were last hashed (device, inode, size and both time stamps) come from the
    state directory. Raises WeightsError for more than MAX_ENTRIES entries.
    """
    entries = list_entries(folder)
    known = _Known.read(folder)
    total, done = sum(e.bytes for e in entries if e.real), 0
    lock, stop = threading.Lock(), threading.Event()

    def told(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            if progress is not None:
                progress(done, total)
        if stop.is_set():
            raise _StoppedError

    def fact(entry: Entry) -> FileFact:
        digest = "" if entry.real is None else known.digest(entry.real, told)
        return FileFact(path=text_of(entry.path), bytes=entry.bytes, sha256=digest)

    # the largest first, so that no worker ends up with it alone
    largest = sorted(entries, key=lambda entry: -entry.bytes)
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        facts = list(pool.map(fact, largest))
    except BaseException:  # also Ctrl-C: the workers end at their next block
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    known.write()
    return sorted(facts, key=lambda fact: fact.path)


def list_entries(folder: Path) -> list[Entry]:
    """All entries of a folder, none opened. Folders that cannot be read are listed as entries."""
    home = folder.resolve()
    inside = [home]
    if home.parent.name == "snapshots":
        inside.append(home.parent.parent / "blobs")
    found: list[Entry] = []
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            with os.scandir(home / prefix) as listing:
                for item in listing:
                    path = prefix + item.name
                    if item.is_dir(follow_symlinks=False):
                        waiting.append(path + "/")
                    else:
                        found.append(_entry(path, Path(item.path), inside))
                    if len(found) + len(waiting) > MAX_ENTRIES:
                        raise WeightsError(
                            f"The folder holds more than {MAX_ENTRIES:,} entries; this is no model."
                        )
        except OSError:  # no right to read it, or a path longer than the system takes
            if not prefix:
                raise WeightsError("The model folder cannot be read; check its rights.") from None
            found.append(Entry(prefix.removesuffix("/"), None, 0))
    return sorted(found, key=lambda entry: entry.path)


def git_blob_digest(path: Path, size: int) -> str:
    """SHA-1 by which git, and so the hub cache, names a file of this size; "" if it is another."""
    digest = sha1(b"blob %d\0" % size, usedforsecurity=False)
    return digest.hexdigest() if _read(path, digest.update) == size else ""


def file_digest(path: Path) -> str:
    """SHA-256 of one regular file; WeightsError where it cannot be read."""
    digest = sha256()
    if _read(path, digest.update) is None:
        raise WeightsError(f"{path.name} cannot be read; check its rights.")
    return digest.hexdigest()


def _entry(path: str, full: Path, inside: list[Path]) -> Entry:
    try:
        state = full.lstat()
        real = full
        if stat.S_ISLNK(state.st_mode):
            real = Path(os.path.realpath(full, strict=True))
            state = real.lstat()
            if not any(real.is_relative_to(place) for place in inside):
                return Entry(path, None, 0)
        if stat.S_ISREG(state.st_mode):
            return Entry(path, real, state.st_size)
    except OSError:  # a link to nothing or in a circle, a file that went away
        pass
    return Entry(path, None, 0)


def _read(path: Path, update: Callable[[memoryview], Any], told: Any = None) -> int | None:
    """Feed a regular file to `update`; returns how many bytes, None where it cannot be read."""
    try:
        descriptor = os.open(path, _OPEN)
    except OSError:
        return None
    done = 0
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            return None
        buffer = memoryview(bytearray(min(_BLOCK, state.st_size + 1)))
        while count := _next(descriptor, buffer):
            update(buffer[:count])
            done += count
            if told is not None:
                told(count)
    finally:
        os.close(descriptor)
    return done if count == 0 else None


def _next(descriptor: int, buffer: memoryview) -> int | None:
    """Bytes read, 0 at the end, None where the disk fails."""
    try:
        return os.readv(descriptor, [buffer])
    except OSError:
        return None


class _Known:
    """Digests of one folder's files from an earlier time, in a file named by a hash."""

    def __init__(self, path: Path, digests: dict[str, str]) -> None:
        self.path, self.old = path, digests
        self.new: dict[str, str] = {}

    @classmethod
    def read(cls, folder: Path) -> _Known:
        name = sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
        path = state_folder() / "digests" / f"{name}.json"
        try:
            return cls(path, msgspec.json.decode(path.read_bytes(), type=dict[str, str]))
        except (OSError, msgspec.DecodeError):  # none, or not of our writing
            return cls(path, {})

    def digest(self, real: Path, told: Callable[[int], None]) -> str:
        """Digest of a file's content, "" where it cannot be read."""
        try:
            before = real.lstat()
        except OSError:
            return ""
        if (found := self.old.get(_key(before))) is not None:
            self.new[_key(before)] = found
            told(before.st_size)
            return found
        digest = sha256()
        if _read(real, digest.update, told) is None:
            return ""
        try:
            after = real.lstat()
        except OSError:
            return digest.hexdigest()
        changed = max(after.st_mtime_ns, after.st_ctime_ns)
        if _key(after) == _key(before) and 0 < changed < time.time_ns() - _SETTLED_NS:
            self.new[_key(before)] = digest.hexdigest()
        return digest.hexdigest()

    def write(self) -> None:
        """Keep what is known now; a folder that cannot be written only costs time later."""
        if self.new == self.old:
            return
        unfinished = self.path.with_suffix(f".{os.getpid()}.partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            unfinished.write_bytes(msgspec.json.encode(self.new))
            os.replace(unfinished, self.path)
        except OSError:
            unfinished.unlink(missing_ok=True)


def _key(state: os.stat_result) -> str:
    """The change time is in it because, unlike the others, no program can set it back."""
    return f"{state.st_dev}:{state.st_ino}:{state.st_size}:{state.st_mtime_ns}:{state.st_ctime_ns}"
