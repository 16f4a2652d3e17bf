"""All files of a checkpoint change at once or not at all: a full disk or a kill leaves the last.

New files are written beside the old ones in a folder of their own. When all are there, that folder
gets its final name, which is the moment the checkpoint changes; then they take the place of the old
ones. A process that is killed in between leaves the rest of the moves to the next one.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingle.errors import IngleError

_UNFINISHED, _WHOLE = "checkpoint.partial", "checkpoint.whole"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO}


class NotSavedError(IngleError):
    """What a run writes could not be written; what it had saved before is whole."""

    code = "not_saved"


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write files in; at the end they replace those of `folder`.

    Raises NotSavedError where the disk takes no more, and leaves `folder` as it was.
    """
    finish(folder)
    new = folder / _UNFINISHED
    with naming_disk_errors(folder):
        shutil.rmtree(new, ignore_errors=True)
        try:
            new.mkdir(parents=True)
            yield new
            for file in new.iterdir():
                _sync(file)
            os.rename(new, folder / _WHOLE)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        finish(folder)


def finish(folder: Path) -> None:
    """Do the moves that a killed process had left, if any; call it before reading `folder`."""
    whole = folder / _WHOLE
    if whole.is_dir():
        for file in whole.iterdir():
            os.replace(file, folder / file.name)
        whole.rmdir()


@contextmanager
def naming_disk_errors(folder: Path) -> Iterator[None]:
    """A disk that takes no more becomes a NotSavedError that says what to do; other errors, such as
    a process that is gone, stay what they are."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM | _NOT_WRITABLE:
            raise
        reason = "the disk is full" if error.errno in _NO_ROOM else error.strerror
        raise NotSavedError(
            f"{folder.name} could not be written: {reason}. What was saved before is whole: make "
            "room, and run the same command to go on from there."
        ) from error


def _sync(path: Path) -> None:
    """A disk may say only now that it is full."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
