"""What speaks for a folder: hub cache names, known releases, signatures, its own statement.

`verified` says what was compared and no more: the names of a hub cache show that nothing changed
since the download, the table of releases that a folder is one of them, a signature whose it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ingle.privacy.bom import verify_bom
from ingle.privacy.digests import git_blob_digest
from ingle.privacy.facts import Evidence, FileFact
from ingle.privacy.releases import Release, known_files, releases
from ingle.privacy.signatures import verify_signatures
from ingle.privacy.statement import verify_statement

_SHA256 = re.compile("[0-9a-f]{64}")
_SHA1 = re.compile("[0-9a-f]{40}")
# What decides how a model behaves, beside its weights.
_DECISIVE = ("config.json", "tokenizer.json", "tokenizer_config.json")


def provenance(folder: Path, files: Sequence[FileFact], keys: Sequence[str] = ()) -> list[Evidence]:
    """All rows, in a fixed order; none where nothing speaks for or against the folder.

    keys: public keys (PEM) whose signatures are trusted.
    """
    return [
        *hub_cache(folder, files),
        *known_releases(files),
        *verify_signatures(folder, files, keys),
        *verify_statement(folder, files),
        *verify_bom(folder, files),
    ]


def hub_cache(folder: Path, files: Sequence[FileFact]) -> list[Evidence]:
    """Compare the files of a snapshot with the names of the blobs they are links to.

    The hub names large files by SHA-256 and small ones by git's SHA-1.
    """
    home = folder.resolve()
    repository = home.parent.parent.name
    if home.parent.name != "snapshots" or not repository.startswith("models--"):
        return []
    counts = {"sha256": 0, "git": 0, "none": 0}
    rows = []
    for file in files:
        blob = _blob(home, file.path)
        if _SHA256.fullmatch(blob):
            counts["sha256"] += 1
            same = file.sha256 == blob
        elif _SHA1.fullmatch(blob):
            counts["git"] += 1
            same = git_blob_digest(home.parent.parent / "blobs" / blob, file.bytes) == blob
        else:
            counts["none"] += 1
            continue
        if not same:
            rows.append(_row("hub-cache", "failed", "It is not what the hub named it.", file.path))
    if rows:
        return rows
    name = repository.removeprefix("models--").replace("--", "/")
    where = f"the hub cache's folder of {name}, commit {home.name}"
    if counts["none"]:
        sentence = f"In {where}; {counts['none']} of {len(files)} files have no name to compare."
        return [_row("hub-cache", "unknown", sentence)]
    sentence = (
        f"In {where}: all {len(files)} files are what the hub named them ({counts['sha256']} by "
        f"SHA-256, {counts['git']} by git's SHA-1), so unchanged since the download."
    )
    return [_row("hub-cache", "verified", sentence)]


def known_releases(files: Sequence[FileFact]) -> list[Evidence]:
    """Compare with the table of known releases: by content, whatever the folder is called."""
    found = {file.path: file.sha256 for file in files}
    rows = []
    for release in releases():
        weights = [name for name in release.files if name.endswith(".safetensors")]
        if not weights or any(found.get(name) != release.files[name] for name in weights):
            continue
        others = {name for name in found if name.endswith(".safetensors")} - set(weights)
        wrong = [n for n in _DECISIVE if n in release.files and found.get(n) != release.files[n]]
        wrong += sorted(others)
        rows += [
            _row("known-release", "failed", f"{_has(release)}, but this file is not.", name)
            for name in wrong
        ]
        if wrong:
            continue
        other = [name for name, digest in release.files.items() if found.get(name) != digest]
        sentence = f"{_has(release)}, licence {release.licence}"
        if other:
            sentence += f", but {', '.join(other)} is not"
        sentence += f". The table's row: {release.obtained}"
        rows.append(_row("known-release", "unknown" if other else "verified", sentence))
    for known in known_files():
        rows += [
            _row("known-file", "verified", f"{known.what} The table's row: {known.obtained}", path)
            for path, digest in sorted(found.items())
            if digest == known.sha256
        ]
    return rows


def _has(release: Release) -> str:
    commit = f" at commit {release.commit}" if release.commit else ""
    return f"The weights are those of {release.repository}{commit}"


def _blob(home: Path, path: str) -> str:
    """Name of the blob that a file of a snapshot is a link to, "" for what is no such link."""
    try:
        target = Path(os.path.normpath((home / path).parent / (home / path).readlink()))
    except OSError:
        return ""
    return target.name if target.parent == home.parent.parent / "blobs" else ""


def _row(kind: str, status: Any, sentence: str, file: str = "") -> Evidence:
    return Evidence(kind=kind, status=status, sentence=sentence, file=file)
