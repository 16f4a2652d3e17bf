"""Which files of a repository are fetched, and why the others are not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from ingle.errors import PullError

WANTED = (
    "*.safetensors", "*.json", "*.md", "*.txt", "license*",
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "*.tiktoken",
)  # fmt: skip
CODE = (
    "*.py", "*.pyc", "*.pyd", "*.ipynb", "*.sh", "*.bat", "*.ps1", "*.js", "*.ts", "*.lua", "*.c",
    "*.cc", "*.cpp", "*.cu", "*.cuh", "*.h", "*.hpp", "*.rs", "*.so", "*.dll", "*.dylib", "*.exe",
    "*.whl", "*.jar", "*.jinja", "*.jinja2", "*.j2",
)  # fmt: skip
PICKLES = (
    "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.joblib", "*.dill", "*.npy", "*.npz",
    "*.h5", "*.keras", "*.pdparams",
)  # fmt: skip
_HEX = {"sha256": re.compile("[0-9a-f]{64}"), "git-sha1": re.compile("[0-9a-f]{40}")}


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch. size in bytes; git-sha1 is the SHA-1 of git's blob, not of the bytes."""

    name: str
    size: int
    algorithm: Literal["sha256", "git-sha1"]
    digest: str


@dataclass(frozen=True)
class LeftOut:
    """A file that is not fetched. size in bytes, None if the hub did not tell."""

    name: str
    size: int | None
    why: str


@dataclass(frozen=True)
class Listing:
    """One commit of a repository, sorted into what is fetched and what is not."""

    commit: str
    files: tuple[RemoteFile, ...]
    left_out: tuple[LeftOut, ...]


def sort_out(repo: str, commit: Any, entries: Iterable[Any]) -> Listing:
    """Sort the hub's list (`rfilename`, `size`, `blob_id`, `lfs` of each file).

    Raises PullError if the hub names no commit or digest, or if there are no weights to fetch.
    """
    # the commit and the digests become names of files and folders here
    if not isinstance(commit, str) or not _HEX["git-sha1"].fullmatch(commit):
        raise PullError(f"The hub named no commit of {repo}; check HF_ENDPOINT.")
    files, left_out = [], []
    for entry in sorted(entries, key=lambda entry: str(entry.rfilename)):
        if why := why_not(entry.rfilename):
            left_out.append(LeftOut(entry.rfilename, entry.size, why))
        else:
            files.append(_remote_file(entry))
    if not any(file.name.lower().endswith(".safetensors") for file in files):
        reasons = sorted({entry.why for entry in left_out})
        rest = f" What it does hold is not fetched ({'; '.join(reasons)})." if reasons else ""
        raise PullError(f"{repo} holds no *.safetensors file.{rest} Look for another repository.")
    return Listing(commit, tuple(files), tuple(left_out))


def why_not(name: str) -> str | None:
    """The reason to leave a file where it is, None for one that is wanted."""
    lowered = name.lower()
    if _matches(lowered, CODE):
        return "code: nothing from a model folder is ever run"
    if _matches(lowered, PICKLES):
        return "pickles and their like: opening one can run code"
    if "/" in name:
        return "in a subfolder: only the top folder is read"
    if not name.isprintable() or "\\" in name or ":" in name or name.startswith("."):
        return "hidden, or a name that is unsafe on some system"
    return None if _matches(lowered, WANTED) else "of no use here"


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _remote_file(entry: Any) -> RemoteFile:
    algorithm: Literal["sha256", "git-sha1"] = "sha256" if entry.lfs else "git-sha1"
    digest = entry.lfs.sha256 if entry.lfs else entry.blob_id
    size = entry.lfs.size if entry.lfs else entry.size
    known = isinstance(digest, str) and _HEX[algorithm].fullmatch(digest)
    if not known or not isinstance(size, int) or size < 0:
        raise PullError(
            f"The hub names no size or digest for {entry.rfilename}, so it could not be checked; "
            "nothing was fetched. If HF_ENDPOINT is a mirror, try another one."
        )
    return RemoteFile(entry.rfilename, size, algorithm, digest)
