"""Where a checkpoint came from, as an in-toto Statement with SLSA's provenance predicate.

https://in-toto.io/Statement/v1 and https://slsa.dev/provenance/v1: the files it speaks of by their
SHA-256, what they were made from, and with what. No time, path, host or user is in it, so the same
run gives the same bytes. It is not signed by itself: `ingle sign` signs the folder with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from ingle.privacy.facts import Evidence, FileFact

PROVENANCE = "provenance.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:ingle:training:1"
BUILDER = "urn:ingle:training"
# Always of one checkpoint; the files of a run that go on changing (metrics, report) are not.
CHECKPOINT_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    "tokenizer_config.json", "training.safetensors",
)  # fmt: skip
_DECISIVE = ("config.json", "tokenizer.json")
_MAX_BYTES = 16 << 20


def make_statement(
    subjects: Mapping[str, str],
    parameters: Mapping[str, Any],
    step: int,
    dependencies: Sequence[Mapping[str, Any]],
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """The statement of one checkpoint.

    subjects: file -> SHA-256. parameters: all that a person chose, as JSON values. dependencies:
    in-toto resource descriptors of code, data and parents. versions: program -> its version.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": subjects[name]}} for name in sorted(subjects)
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(parameters),
                "internalParameters": {"step": step, "parametersDigest": digest_of(parameters)},
                "resolvedDependencies": [dict(entry) for entry in dependencies],
            },
            "runDetails": {"builder": {"id": BUILDER, "version": dict(versions)}},
        },
    }


def canonical(value: Any) -> bytes:
    """The one way these files are written: sorted keys, two spaces, a newline at the end."""
    return (json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form."""
    return sha256(canonical(value)).hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file so that a reader sees the old one or all of the new."""
    unfinished = path.with_name(path.name + ".partial")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def read_canonical(path: Path) -> dict[str, Any] | None:
    """A JSON object in the form in which we write them; None for anything else."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        raw = path.read_bytes()
        value = json.loads(raw)
        return value if isinstance(value, dict) and canonical(value) == raw else None
    except (OSError, ValueError, RecursionError):
        return None


def verify_statement(folder: Path, files: Sequence[FileFact]) -> list[Evidence]:
    """What the folder's statement shows about its files; no row where there is none."""
    found = {file.path: file.sha256 for file in files}
    if PROVENANCE not in found:
        return []
    statement = read_canonical(folder / PROVENANCE) if found[PROVENANCE] else None
    if statement is None:
        return [_row("failed", "The statement is not as it was written: it was changed or cut.")]
    if problem := _form(statement):
        return [_row("failed", f"The statement is damaged: {problem}.")]
    subjects = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
    rows = [
        _row(
            "failed",
            "The file is not the one that the statement speaks of."
            if name in found
            else "The statement speaks of this file, which is missing.",
            name,
        )
        for name, digest in subjects.items()
        if found.get(name) != digest
    ]
    decisive = [n for n in found if n.endswith(".safetensors") or n in _DECISIVE]
    unsaid = [n for n in decisive if n not in subjects]
    rows += [_row("failed", "The statement does not speak of this file.", name) for name in unsaid]
    if rows:
        return rows
    return [
        _row("verified", f"{_summary(statement)} All {len(subjects)} files it names are unchanged.")
    ]


def _form(statement: dict[str, Any]) -> str:
    """Why this is no statement of ours, "" for one that is."""
    try:
        if statement["_type"] != STATEMENT_TYPE or statement["predicateType"] != PREDICATE_TYPE:
            return "it is of another type"
        build = statement["predicate"]["buildDefinition"]
        if build["buildType"] != BUILD_TYPE:
            return "it was made by another kind of build"
        names = [entry["name"] for entry in statement["subject"]]
        digests = [entry["digest"]["sha256"] for entry in statement["subject"]]
        if not names or len(set(names)) != len(names):
            return "it names no file, or one twice"
        if not all(isinstance(text, str) for text in names + digests):
            return "a name or digest is no text"
        if build["internalParameters"]["parametersDigest"] != digest_of(
            build["externalParameters"]
        ):
            return "the digest of its parameters does not fit them"
        step = build["internalParameters"]["step"]
        if type(step) is not int or step < 0:
            return "it names no step"
        list(map(_named, build["resolvedDependencies"]))
    except (KeyError, TypeError, AttributeError):
        return "a field is missing or of another kind"
    return ""


def _named(entry: dict[str, Any]) -> tuple[str, dict[str, str]]:
    digests = dict(entry["digest"])
    if not all(isinstance(value, str) for value in digests.values()):
        raise TypeError
    return str(entry["name"]), digests


def _summary(statement: dict[str, Any]) -> str:
    """One sentence on what the statement claims."""
    build = statement["predicate"]["buildDefinition"]
    sources = [_named(entry) for entry in build["resolvedDependencies"]]
    commits = [d.get("gitCommit", "unknown")[:12] for name, d in sources if name == "code"]
    parents = sum(name.startswith("parent/") for name, _ in sources)
    chosen = build["externalParameters"]  # weights that were only rewritten are of no named run
    run = str(chosen.get("name") or chosen.get("operation", ""))[:80]
    start = f"{parents} files of a parent" if parents else "random weights"
    return (
        f"By its statement this is step {build['internalParameters']['step']} of the run "
        f"{run!r} from {start}, made by ingle at commit {' then '.join(commits) or 'unknown'}."
    )


def _row(status: Any, sentence: str, file: str = PROVENANCE) -> Evidence:
    return Evidence(kind="attestation", status=status, sentence=sentence, file=file)
