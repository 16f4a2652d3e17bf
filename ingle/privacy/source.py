"""Which code this is: the commit of its checkout, and a digest that needs no git."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
_SUFFIXES = {".py", ".cpp", ".h", ".txt"}
_COMMIT = re.compile("[0-9a-f]{40}(?:[0-9a-f]{24})?")


def code_digest(room: str = "") -> str:
    """SHA-256 over the lines `<sha256>  <path>` of the package's sources, or of one room's."""
    files = sorted(
        path for path in (PACKAGE / room).rglob("*")
        if path.suffix in _SUFFIXES and "__pycache__" not in path.parts and path.is_file()
    )  # fmt: skip
    lines = (
        f"{sha256(path.read_bytes()).hexdigest()}  {path.relative_to(PACKAGE).as_posix()}\n"
        for path in files
    )
    return sha256("".join(lines).encode()).hexdigest()


def git_commit(root: Path = PACKAGE.parent) -> str:
    """The commit that is checked out at `root`, "unknown" where that is no git checkout.

    Files changed since then are not seen: that is what `code_digest` is for. Reads git's files
    itself, so that no program has to be started.
    """
    try:
        git = root / ".git"
        if git.is_file():  # a linked worktree: "gitdir: <path>"
            git = root / git.read_text("utf-8").removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text("utf-8").strip()
        if not head.startswith("ref: "):
            return head if _COMMIT.fullmatch(head) else "unknown"
        name = head.removeprefix("ref: ")
        common = git
        if (git / "commondir").is_file():
            common = git / (git / "commondir").read_text("utf-8").strip()
        for loose in (git / name, common / name):
            if loose.is_file():
                commit = loose.read_text("utf-8").strip()
                return commit if _COMMIT.fullmatch(commit) else "unknown"
        for line in (common / "packed-refs").read_text("utf-8").splitlines():
            commit, _, packed = line.partition(" ")
            if packed == name and _COMMIT.fullmatch(commit):
                return commit
    except (OSError, UnicodeDecodeError):
        pass
    return "unknown"
