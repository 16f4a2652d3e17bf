"""A repository into the cache of huggingface_hub: `blobs/DIGEST`, linked from `snapshots/COMMIT`.

A snapshot is linked only when all of its files are there and checked, and the branch is moved to
it last: whoever looks for the model finds a whole one or none.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Literal

from ingle.errors import DiskFullError, PullError
from ingle.hub.client import Hub
from ingle.hub.fetch import Fetch, disk_errors, partial_path, verified
from ingle.hub.listing import Listing, RemoteFile

State = Literal["missing", "partial", "present"]
_LOCK_SECONDS = 0.5


@dataclass(frozen=True)
class Plan:
    """A commit of a repository and its place in a cache folder."""

    repo: str
    revision: str
    listing: Listing
    cache: Path

    @property
    def home(self) -> Path:
        return self.cache / f"models--{self.repo.replace('/', '--')}"

    @property
    def folder(self) -> Path:
        """The model folder, which exists once everything is there."""
        return self.home / "snapshots" / self.listing.commit

    def blob(self, file: RemoteFile) -> Path:
        return self.home / "blobs" / file.digest

    def found(self, file: RemoteFile) -> Path | None:
        """The file, if it is here in full length; unchecked. Caches without links have no blobs."""
        for path in (self.blob(file), self.folder / file.name):
            with suppress(OSError):
                if path.is_file() and path.stat().st_size == file.size:
                    return path
        return None

    def state(self, file: RemoteFile) -> State:
        if self.found(file):
            return "present"
        return "partial" if self._partial_bytes(file) else "missing"

    def unique(self) -> list[RemoteFile]:
        """One file of each content, the largest first, so that no worker ends up with it alone."""
        files = {file.digest: file for file in self.listing.files}
        return sorted(files.values(), key=lambda file: -file.size)

    def bytes_to_fetch(self) -> int:
        files = (file for file in self.unique() if not self.found(file))
        return sum(max(file.size - self._partial_bytes(file), 0) for file in files)

    def free_bytes(self) -> int:
        """Of the disk that holds the cache, or will hold it."""
        with disk_errors():
            path = self.cache.absolute()
            return shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free

    def _partial_bytes(self, file: RemoteFile) -> int:
        try:
            return partial_path(self.blob(file)).stat().st_size
        except OSError:
            return 0


def pull(plan: Plan, hub: Hub, workers: int, progress: Callable[[int, int], None]) -> list[str]:
    """Fetch and check all files of a plan, link them, and return the names that were fetched.

    progress hears (bytes there and checked, bytes in all), one call at a time. Files of the cache
    that are already there are read and checked too, and fetched again if damaged. Raises the
    PullErrors; whatever ends it early, what came stays for the next call.
    """
    needed, free = plan.bytes_to_fetch(), plan.free_bytes()
    if needed > free:
        raise DiskFullError(
            f"{plan.repo} needs {needed / 1e9:,.2f} GB more on disk and {free / 1e9:,.2f} GB are "
            "free; nothing was fetched. Free some space, or point HF_HUB_CACHE to another disk."
        )
    with disk_errors():
        (plan.home / "blobs").mkdir(parents=True, exist_ok=True)
    with _alone(plan):
        fetched = _all(plan, hub, workers, progress)
        with disk_errors():
            for file in plan.listing.files:
                _link(plan.blob(file), plan.folder / file.name)
            if plan.revision != plan.listing.commit:
                ref = plan.home / "refs" / plan.revision
                ref.parent.mkdir(parents=True, exist_ok=True)
                ref.write_text(plan.listing.commit, "utf-8")
    return [file.name for file in plan.listing.files if file.digest in fetched]


def _all(plan: Plan, hub: Hub, workers: int, progress: Callable[[int, int], None]) -> set[str]:
    """Have every file in place; returns the digests of those that were fetched."""
    stop, lock, done = Event(), Lock(), 0
    total = sum(file.size for file in plan.unique())

    def told(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            progress(done, total)

    def have(file: RemoteFile) -> str | None:
        if path := plan.found(file):
            if verified(path, file, told, stop):
                return None
            _forget(plan, file)
        Fetch(hub, plan.repo, plan.listing.commit, file, plan.blob(file), told, stop).run()
        return file.digest

    pool = ThreadPoolExecutor(workers)
    try:
        futures = [pool.submit(have, file) for file in plan.unique()]
        return {digest for future in as_completed(futures) if (digest := future.result())}
    except BaseException:  # also Ctrl-C: the workers close their files with what came
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _forget(plan: Plan, file: RemoteFile) -> None:
    """Delete a damaged file and the links to it, which would lead nowhere if fetching it fails."""
    with disk_errors():
        for other in plan.listing.files:
            if other.digest == file.digest:
                (plan.folder / other.name).unlink(missing_ok=True)
        plan.blob(file).unlink(missing_ok=True)


def _link(blob: Path, pointer: Path) -> None:
    """Name a blob as a file of the snapshot, as huggingface_hub does it."""
    if pointer.exists() and (not blob.exists() or pointer.samefile(blob)):
        return
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.unlink(missing_ok=True)
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:  # a system, or its user, without symbolic links
        os.link(blob, pointer)


@contextmanager
def _alone(plan: Plan) -> Iterator[None]:
    """Two pulls of one repository would write to the same unfinished files."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock

    path = plan.cache / ".locks" / plan.home.name / "ingle-pull.lock"
    with disk_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with WeakFileLock(path, timeout=_LOCK_SECONDS):
            yield
    except Timeout as error:
        raise PullError(
            f"Another ingle pull of {plan.repo} is running; wait for it, or stop it."
        ) from error
