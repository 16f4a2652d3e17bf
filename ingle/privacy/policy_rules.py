"""The rules of a policy: each has an id, a sentence, and what it finds against a folder.

The first three hold in every policy; each of the others is the key of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ingle.privacy.facts import WEIGHT_KINDS, Decision, Facts
from ingle.privacy.statement import PREDICATE_TYPE, STATEMENT_TYPE

if TYPE_CHECKING:
    from ingle.privacy.policy import Policy

Found = Iterator[tuple[str, str]]  # a sentence, and the file it is about or ""
Check = Callable[[Facts, "Policy", bool | None], Found]
_INTEGRITY = ("hub-cache", "known-release", "signature", "attestation")
_ENOUGH = {
    "unchanged": _INTEGRITY, "known": ("known-release", "signature"), "signed": ("signature",),
}  # fmt: skip
_TEXTS = ("card", "licence", "document", "text")


@dataclass(frozen=True)
class Rule:
    """check yields what speaks against a folder; decision is what follows from it, None where the
    policy does not ask. contents: whether files must be read in full to know."""

    id: str
    sentence: str
    check: Check
    decision: Callable[[Policy], Decision | None]
    contents: bool = False


def _finding(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    for finding in facts.findings:
        if finding.severity == "refuse":
            yield f"{finding.id}: {finding.sentence}", finding.file


def _doubts(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    for finding in facts.findings:
        if finding.severity == "doubt":
            yield f"{finding.id}: {finding.sentence}", finding.file


def _contradiction(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    for row in facts.provenance:
        if row.status == "failed":
            yield f"{row.kind}: {row.sentence}", row.file


def _network(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    if sealed is False:
        yield "The model would run unsealed; leave --unsealed away.", ""


def _formats(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    for file in facts.files:
        if file.kind in WEIGHT_KINDS and file.kind not in policy.formats:
            yield f"A file of the kind {file.kind} lies in the folder.", file.path


def _remote_code(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    if policy.remote_code == "unneeded" and facts.identity.supported:
        return
    for code in facts.code:
        if code.kind in ("auto_map", "python", "other"):
            yield f"Code for other programs: {code.sentence}", code.file


def _native(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    if not facts.identity.supported:
        yield f"ingle has no model code of its own for {facts.identity.model_type!r}.", ""


def _architectures(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    for kind in sorted({facts.identity.model_type, facts.identity.recognised} - {""}):
        if kind not in policy.architectures:
            yield f"The architecture {kind} is not on the list.", ""
    if not facts.identity.model_type:
        yield "The folder does not say its architecture.", ""


def _names(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    if not any(fnmatchcase(facts.identity.name, pattern) for pattern in policy.names):
        yield f"The name {facts.identity.name} is not on the list.", ""


def _models(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    if facts.digest not in [digest.removeprefix("sha256:") for digest in policy.models]:
        yield f"The folder's digest {facts.digest} is not on the list.", ""


def _refused_models(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    if facts.digest in [digest.removeprefix("sha256:") for digest in policy.refused_models]:
        yield f"The folder's digest {facts.digest} is on the list of those refused.", ""


def _max_parameters(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    count = max(facts.identity.parameters, facts.identity.config_parameters)
    if policy.max_parameters != "any" and count > policy.max_parameters:
        yield f"{count:,} parameters; at most {policy.max_parameters:,} are admitted.", ""


def _max_bytes(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    count = sum(file.bytes for file in facts.files)
    if policy.max_bytes != "any" and count > policy.max_bytes:
        yield f"{count:,} bytes; at most {policy.max_bytes:,} are admitted.", ""


def _dtypes(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    for dtype in sorted(facts.weights.dtypes):
        if dtype not in policy.dtypes:
            yield f"Tensors of the kind {dtype} are not on the list.", ""


def _template(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    if facts.template.status not in ("absent", "same"):
        yield f"The chat template is not ingle's own: {facts.template.status}.", facts.template.file


def _tokenizer(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    if not facts.tokenizer.checks:
        yield "No tokenizer was checked.", facts.tokenizer.file
    for check in facts.tokenizer.checks:
        if check.status != "ok":
            yield f"{check.id}: {check.sentence}", facts.tokenizer.file


def _digests(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    enough = _ENOUGH[policy.digests]
    if any(row.kind in enough and row.status == "verified" for row in facts.provenance):
        return
    if policy.digests == "signed":
        keys = f"the policy names {len(policy.signing_keys)}"
        yield f"No signature by a trusted key ({keys}). 'ingle sign' makes one.", ""
    else:
        yield f"Nothing of {', '.join(enough)} is verified: unverified, which is not ok here.", ""


def _attestation(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    if not any(r.kind == "attestation" and r.status == "verified" for r in facts.provenance):
        yield "No verified statement of where the weights come from.", ""


def _licences(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    licence = facts.licence
    found = {*licence.recognised, *([licence.declared] if licence.declared else [])}
    if not found:
        yield "No licence was recognised.", ""
    for name in sorted(found - set(policy.licences)):
        yield f"The licence {name} is not on the list.", ""


def _licence_check(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    if facts.licence.agrees is False:
        yield f"Not the licence of this release: {facts.licence.sentence}", ""


def _addresses(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    kinds = {file.path: file.kind for file in facts.files}
    for address in facts.addresses:
        if address.text in (STATEMENT_TYPE, PREDICATE_TYPE):
            continue  # the names of the statement's own form (statement.py)
        if policy.addresses == "none" or kinds.get(address.file) not in _TEXTS:
            yield f"An address: {address.text}", address.file


def _hidden_files(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    for finding in facts.findings:
        if finding.id == "file.hidden":
            yield "A hidden file.", finding.file


def _behaviour_report(facts: Facts, policy: Policy, sealed: bool | None) -> Found:
    if not facts.behaviour_report:
        yield "No behaviour report of this very folder: 'ingle audit behaviour' writes one.", ""


def _refused(asked: Callable[[Policy], bool]) -> Callable[[Policy], Decision | None]:
    return lambda policy: "refused" if asked(policy) else None


def _doubted(policy: Policy) -> Decision | None:
    decisions: dict[str, Decision | None] = {
        "note": None, "undecided": "undecided", "refuse": "refused",
    }  # fmt: skip
    return decisions[policy.doubts]


def _listed(key: str) -> Callable[[Policy], Decision | None]:
    return _refused(lambda policy: getattr(policy, key) != "any")


RULES = (
    Rule("finding", "What the audit refuses is refused by every policy.", _finding,
         _refused(lambda policy: True)),
    Rule("contradiction", "Evidence that the files contradict is refused by every policy.",
         _contradiction, _refused(lambda policy: True)),
    Rule("doubts", "What the audit could not decide is told, leaves the verdict open, or refuses.",
         _doubts, _doubted),
    Rule("network", "The model runs only in a sealed process.", _network,
         _refused(lambda policy: policy.network == "none")),
    Rule("formats", "Weights, or what may hold them, only of these kinds.", _formats,
         _listed("formats")),
    Rule("remote_code", "No code beside the weights, or none that would be needed.", _remote_code,
         _refused(lambda policy: policy.remote_code != "never-run"), contents=True),
    Rule("native", "ingle has model code of its own.", _native,
         _refused(lambda policy: policy.native)),
    Rule("architectures", "Only these architectures, claimed and recognised.", _architectures,
         _listed("architectures")),
    Rule("names", "Only names that match one of these patterns.", _names, _listed("names")),
    Rule("models", "Only folders of exactly these digests.", _models, _listed("models"),
         contents=True),
    Rule("refused_models", "No folder of one of these digests.", _refused_models,
         _refused(lambda policy: bool(policy.refused_models)), contents=True),
    Rule("max_parameters", "No model of more parameters.", _max_parameters,
         _listed("max_parameters")),
    Rule("max_bytes", "No folder of more bytes.", _max_bytes, _listed("max_bytes")),
    Rule("dtypes", "Tensors only of these kinds.", _dtypes, _listed("dtypes"), contents=True),
    Rule("template", "No chat template that ingle's own encoder does not equal.", _template,
         _refused(lambda policy: policy.template == "known"), contents=True),
    Rule("tokenizer", "Every check of the tokenizer is passed.", _tokenizer,
         _refused(lambda policy: policy.tokenizer == "checked"), contents=True),
    Rule("digests", "The files are verified to be unchanged, known or signed.", _digests,
         _refused(lambda policy: policy.digests != "any"), contents=True),
    Rule("attestation", "A verified statement says where the weights come from.", _attestation,
         _refused(lambda policy: policy.attestation == "required"), contents=True),
    Rule("licences", "Only these licences.", _licences, _listed("licences"), contents=True),
    Rule("licence_check", "The licence is the one that the release of this name has.",
         _licence_check, _refused(lambda policy: policy.licence_check == "agrees"), contents=True),
    Rule("addresses", "No address of the network, or only in documents.", _addresses,
         _refused(lambda policy: policy.addresses != "any"), contents=True),
    Rule("hidden_files", "No hidden files.", _hidden_files,
         _refused(lambda policy: policy.hidden_files == "refuse")),
    Rule("behaviour_report", "A report of ingle audit behaviour names this very folder.",
         _behaviour_report, _refused(lambda policy: policy.behaviour_report == "required"),
         contents=True),
)  # fmt: skip
