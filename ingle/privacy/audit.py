"""The audit of a model folder: facts, and what a policy says of them. Nothing in it is executed.

Whatever is parsed is parsed in a limited child (limited.py): a file that blows up is a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from ingle.errors import InvalidRequestError
from ingle.privacy.addresses import examine_addresses
from ingle.privacy.archives import HOLDING, examine_holding
from ingle.privacy.code import CODE_KINDS, JSON_KINDS, examine_code, examine_json
from ingle.privacy.digests import hash_files
from ingle.privacy.facts import (
    WEIGHT_KINDS,
    Audit,
    Check,
    Facts,
    FileFact,
    Finding,
    Identity,
    Seen,
    Severity,
    Template,
    Tokenizer,
    Weights,
    manifest_digest,
)
from ingle.privacy.folder import Entry, list_folder
from ingle.privacy.identity import name_of
from ingle.privacy.kinds import TEXTS
from ingle.privacy.licences import read_licences
from ingle.privacy.limited import Limit, examine, examine_one
from ingle.privacy.policy import Policy, judge
from ingle.privacy.provenance import provenance
from ingle.privacy.templates import Folder as TemplateFolder
from ingle.privacy.templates import Rendered, examine_template
from ingle.privacy.tensors import Tensors, examine_tensors, place_of
from ingle.privacy.tokenizers import FILE as TOKENIZER
from ingle.privacy.tokenizers import Folder as TokenizerFolder
from ingle.privacy.tokenizers import Tokens, examine_round_trip, examine_tokenizer

_UNHASHED = ("file.many", "file.sparse")  # folders whose bytes have no end
_MAX_FINDINGS = 1000

Part = TypeVar("Part")
Place = TypeVar("Place")
Progress = Callable[[int, int], None]


def audit(
    folder: Path, policy: Policy, progress: Progress | None = None, behaviour: Path | None = None
) -> Audit:
    """Facts of a folder and the policy's verdict.

    progress hears (bytes hashed, bytes in all). behaviour: a report of `ingle audit behaviour
    --json`. Raises WeightsError for a folder that cannot be read at all, InvalidRequestError for a
    report that is none, or of other files; everything else that is wrong is a finding.
    """
    facts = gather_facts(folder, progress)
    if behaviour is not None:
        report = _report_digest(behaviour, facts.digest)
        facts = msgspec.structs.replace(facts, behaviour_report=report)
    return Audit(facts=facts, verdict=judge(facts, policy))


def gather_facts(folder: Path, progress: Progress | None = None, keys: Sequence[str] = ()) -> Facts:
    """Everything there is to know about a folder without running anything in it.

    keys: public keys (PEM) whose signatures are trusted.
    """
    home = folder.resolve()
    entries, findings = list_folder(home)
    seen = list(_examine_files(entries))
    tensors = _examine_tensors(home, name_of(home), entries)
    tokens = _examine_tokenizer(home, entries)
    template = _examine_template(home, entries, tokens)
    licence, licence_findings = read_licences(tensors.identity.name, entries)
    findings += [finding for part in seen for finding in part.findings]
    findings += [*tensors.findings, *tokens.findings, *template.findings]
    findings += [*licence_findings, *_formats(entries)]
    files = _hash(home, entries, findings, progress)
    return Facts(
        digest=manifest_digest(files),
        identity=tensors.identity,
        files=files,
        code=tuple(sorted((c for part in seen for c in part.code), key=lambda code: code.file)),
        addresses=tuple(a for part in seen for a in part.addresses),
        provenance=tuple(provenance(home, list(files), keys)),
        licence=licence,
        template=template.template,
        tokenizer=tokens.tokenizer,
        weights=tensors.weights,
        findings=tuple(sorted(set(findings), key=_order)[:_MAX_FINDINGS]),
    )


class _Report(msgspec.Struct):
    """What is read of a behaviour report."""

    schema: Literal["ingle.audit.behaviour/1"]
    digest: str


def _report_digest(report: Path, files: str) -> str:
    """SHA-256 of a behaviour report, if it is of the files with this digest."""
    try:
        raw = report.read_bytes()
        named = msgspec.json.decode(raw, type=_Report).digest
    except (OSError, msgspec.MsgspecError):
        raise InvalidRequestError(
            "The behaviour report cannot be read; write one with: "
            "ingle audit behaviour MODEL --json > FILE",
            "behaviour",
        ) from None
    if named != files:
        raise InvalidRequestError(
            "The behaviour report is of other files than this folder's; write it anew.",
            "behaviour",
        )
    return sha256(raw).hexdigest()


def _examine_files(entries: list[Entry]) -> Iterable[Seen]:
    """Code, hooks, pickles and addresses, file by file."""
    readable = [entry for entry in entries if entry.source is not None]
    for what, function, kinds, seconds in (
        ("code", examine_code, CODE_KINDS, 10),
        ("json", examine_json, JSON_KINDS, 10),
        ("pickle", examine_holding, tuple(HOLDING), 30),
        ("address", examine_addresses, TEXTS, 10),
    ):
        chosen = [entry for entry in readable if entry.kind in kinds]
        results = examine(function, chosen, Seen, seconds=seconds)
        for entry, result in zip(chosen, results, strict=True):
            if isinstance(result, Limit):
                result = Seen(findings=(_limit(what, entry.path, result),))
            yield result


def _examine_tensors(home: Path, name: str, entries: list[Entry]) -> Tensors:
    place = place_of(home, name, entries)
    return _one(
        examine_tensors,
        place,
        Tensors,
        lambda limit: Tensors(
            identity=Identity(
                name=name,
                model_type="",
                architecture="",
                recognised="",
                supported=False,
                parameters=0,
                config_parameters=0,
                sentence="What this is could not be found out.",
            ),
            weights=Weights(files=len(place.shards)),
            findings=(_limit("weights", "", limit),),
        ),
        seconds=60,
    )


def _examine_tokenizer(home: Path, entries: list[Entry]) -> Tokens:
    """The checks of the file, and if it is sound the trial."""
    place = TokenizerFolder(folder=home, paths=_paths(entries))
    tokens = _one(
        examine_tokenizer,
        place,
        Tokens,
        lambda limit: Tokens(
            tokenizer=Tokenizer(file=TOKENIZER),
            findings=(_limit("tokenizer", TOKENIZER, limit),),
        ),
        seconds=20,
    )
    if not tokens.tokenizer.checks or any(f.severity == "refuse" for f in tokens.findings):
        return tokens
    # the library's own form of the largest files takes 300 MB
    trial = examine_one(
        examine_round_trip, place, tuple[Check, ...], seconds=20, megabytes=512
    )  # fmt: skip
    checks = () if isinstance(trial, Limit) else trial
    findings = [_limit("tokenizer", TOKENIZER, trial)] if isinstance(trial, Limit) else []
    findings += [
        _finding(f"tokenizer.{check.id}", "refuse", TOKENIZER, check.sentence)
        for check in checks
        if check.status == "failed"
    ]
    return msgspec.structs.replace(
        tokens,
        tokenizer=msgspec.structs.replace(
            tokens.tokenizer, checks=(*tokens.tokenizer.checks, *checks)
        ),
        findings=(*tokens.findings, *findings),
    )


def _examine_template(home: Path, entries: list[Entry], tokens: Tokens) -> Rendered:
    place = TemplateFolder(folder=home, paths=_paths(entries), added=tokens.added)
    return _one(
        examine_template,
        place,
        Rendered,
        lambda limit: Rendered(
            template=Template(status="hostile"), findings=(_limit("template", "", limit),)
        ),
        seconds=2,
        megabytes=64,
    )


def _one(
    function: Callable[[Place], Part],
    place: Place,
    kind: type[Part],
    lost: Callable[[Limit], Part],
    **limits: int,
) -> Part:
    """One examination, or what stands for it when the child was lost."""
    result = examine_one(function, place, kind, **limits)
    return lost(result) if isinstance(result, Limit) else result


def _formats(entries: Sequence[Entry]) -> Iterable[Finding]:
    """Weights in any other format than safetensors."""
    for entry in entries:
        if entry.kind in WEIGHT_KINDS and entry.kind != "safetensors":
            sentence = f"Of kind {entry.kind}; ingle loads weights from safetensors only."
            yield _finding(f"format.{entry.kind}", "note", entry.path, sentence)


def _hash(
    home: Path, entries: list[Entry], findings: list[Finding], progress: Progress | None
) -> tuple[FileFact, ...]:
    kinds = {entry.path: entry.kind for entry in entries}
    if any(finding.id in _UNHASHED for finding in findings):
        return tuple(
            FileFact(path=entry.path, bytes=entry.bytes, sha256="", kind=entry.kind)
            for entry in entries
        )
    return tuple(
        msgspec.structs.replace(fact, kind=kinds.get(fact.path, "unknown"))
        for fact in hash_files(home, progress)
    )


def _limit(what: str, path: str, limit: Limit) -> Finding:
    return _finding(f"{what}.limit", "refuse", path, f"What is in it {limit.reason}.")


def _finding(name: str, severity: Severity, path: str, sentence: str) -> Finding:
    return Finding(id=name, severity=severity, file=path, sentence=sentence)


def _paths(entries: list[Entry]) -> frozenset[str]:
    return frozenset(entry.path for entry in entries if entry.source is not None)


def _order(finding: Finding) -> tuple[int, str, str, str]:
    rank = ("refuse", "doubt", "note").index(finding.severity)
    return rank, finding.id, finding.file, finding.sentence
