"""One file: from the hub, or from what an earlier try left, to a checked file on disk."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import BinaryIO

from ingle.errors import DigestError, DiskFullError, NetworkError, PullError
from ingle.hub.client import Hub, TryAgainError
from ingle.hub.listing import RemoteFile

TRIES = 6  # in a row that bring not one byte
FIRST_WAIT_SECONDS = 1.0  # doubles with each of them
LONGEST_WAIT_SECONDS = 60.0
_BLOCK = 1 << 20


class StoppedError(Exception):
    """Another file failed, or a person pressed Ctrl-C."""


class _WrongError(Exception):
    """The bytes are not those that the hub names."""


class Digest:
    """Hash of a file as the hub names it, and the count of bytes that went into it."""

    def __init__(self, file: RemoteFile) -> None:
        self.count = 0
        if file.algorithm == "sha256":
            self._hash = hashlib.sha256()
        else:
            self._hash = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)

    def update(self, data: bytes) -> None:
        self._hash.update(data)
        self.count += len(data)

    def matches(self, file: RemoteFile) -> bool:
        return self.count == file.size and self._hash.hexdigest() == file.digest


class Fetch:
    """The download of one file of a commit into `blob`; `told` hears of bytes read or received.

    It may hear a negative number, where bytes turn out to be needed again.
    """

    def __init__(
        self, hub: Hub, repo: str, commit: str, file: RemoteFile, blob: Path,
        told: Callable[[int], None], stop: Event,
    ) -> None:  # fmt: skip
        self.hub, self.repo, self.commit, self.file, self.blob = hub, repo, commit, file, blob
        self.partial = partial_path(blob)
        self.told, self.stop = told, stop
        self.digest = Digest(file)

    def run(self) -> None:
        """Raises PullErrors and StoppedError; both leave what came, except for a wrong digest."""
        try:
            with disk_errors(), self.partial.open("a+b") as out:
                self._fill(out)
            if not self.digest.matches(self.file):
                raise _WrongError(f"does not have the {self.file.algorithm} that the hub names")
        except _WrongError as wrong:
            with disk_errors():
                self.partial.unlink(missing_ok=True)
            raise DigestError(
                f"{self.file.name} {wrong}; it was deleted. Run the same command again; if it "
                "fails again, the hub or something between it and this machine changes files."
            ) from wrong
        with disk_errors():
            os.replace(self.partial, self.blob)

    def _fill(self, out: BinaryIO) -> None:
        """Receive what is missing, with pauses and new tries where the connection fails."""
        out.seek(0)
        while data := out.read(_BLOCK):  # what an earlier try received
            self._take(data)
            self._check_stop()
        tries, wait = 0, FIRST_WAIT_SECONDS
        while (before := self.digest.count) < self.file.size:
            failure = self._receive(out)
            if self.digest.count > before:
                tries, wait = 0, FIRST_WAIT_SECONDS
            if self.digest.count == self.file.size:
                break
            tries += 1
            if tries == TRIES:
                raise NetworkError(
                    f"{self.file.name}: {failure}, {TRIES} times. What came is kept; run the same "
                    "command again to go on."
                )
            self.stop.wait(min(max(wait, failure.wait), LONGEST_WAIT_SECONDS))
            self._check_stop()
            wait *= 2

    def _receive(self, out: BinaryIO) -> TryAgainError:
        """Ask once; returns why no more came, which is of no interest if the file is complete."""
        try:
            with self.hub.open(self.repo, self.commit, self.file.name, self.digest.count) as (
                first, chunks,
            ):  # fmt: skip
                if first != self.digest.count:  # the hub ignores ranges and starts over
                    self.told(-self.digest.count)
                    self.digest = Digest(self.file)
                    out.truncate(0)
                for chunk in chunks:
                    self._take(chunk)
                    out.write(chunk)
                    self._check_stop()
        except TryAgainError as error:
            return error
        return TryAgainError(f"{self.hub.host} ended the file early")

    def _take(self, data: bytes) -> None:
        self.digest.update(data)
        self.told(len(data))
        if self.digest.count > self.file.size:
            raise _WrongError(f"is longer than the {self.file.size:,} bytes that the hub names")

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise StoppedError


def verified(path: Path, file: RemoteFile, told: Callable[[int], None], stop: Event) -> bool:
    """Whether a file on disk is the one the hub names. `told` as in Fetch; raises StoppedError."""
    digest = Digest(file)
    with disk_errors(), path.open("rb") as stream:
        while data := stream.read(_BLOCK):
            if stop.is_set():
                raise StoppedError
            digest.update(data)
            told(len(data))
    if digest.matches(file):
        return True
    told(-digest.count)
    return False


def partial_path(blob: Path) -> Path:
    """Where a download grows. huggingface_hub clears `*.incomplete` away, but never writes this."""
    return blob.with_name(f"{blob.name}.ingle.incomplete")


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn errors of the file system into PullErrors."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                "The disk of the cache is full. What came is kept: free some space, or point "
                "HF_HUB_CACHE to another disk, and run the same command again."
            ) from error
        raise PullError(
            f"The cache cannot be used ({error.strerror or 'file system error'}); check its "
            "rights, or point HF_HUB_CACHE to another folder."
        ) from error
