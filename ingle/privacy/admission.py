"""The policy at a start: judged before a byte of weights is mapped, from as little as it asks for.

A policy that asks only for names, sizes and the config is judged from these in milliseconds,
whatever the size of the model. One that asks for contents needs the whole audit (cli/admitting.py).
"""

from __future__ import annotations

from pathlib import Path

from ingle.errors import IngleError, NotAdmittedError
from ingle.models.read import FAMILIES, parse_config, read_json
from ingle.privacy.facts import Facts, FileFact, Identity, Verdict
from ingle.privacy.folder import list_folder
from ingle.privacy.identity import name_of
from ingle.privacy.policy import Policy, judge


def admit(folder: Path, policy: Policy, sealed: bool) -> None:
    """Raise NotAdmittedError if what is seen from outside speaks against a folder."""
    verdict = judge(outside_facts(folder), policy, sealed, contents=False)
    raise_unless_admitted(verdict, start_undecided=True)


def outside_facts(folder: Path) -> Facts:
    """Facts without contents: no digest, no code, no tensors; what is not known is empty."""
    home = folder.resolve()
    entries, findings = list_folder(home)
    model_type, architecture, parameters = "", "", 0
    try:
        raw = read_json(home / "config.json")
        model_type, architecture = str(raw.get("model_type", "")), _first(raw.get("architectures"))
        parameters = parse_config(raw).count_parameters()
    except IngleError:
        pass  # loading says it better
    return Facts(
        digest="",
        identity=Identity(
            name=name_of(home),
            model_type=model_type,
            architecture=architecture,
            recognised="",
            supported=model_type in FAMILIES,
            parameters=0,
            config_parameters=parameters,
            sentence="",
        ),
        files=tuple(
            FileFact(path=entry.path, bytes=entry.bytes, sha256="", kind=entry.kind)
            for entry in entries
        ),
        findings=tuple(findings),
    )


def raise_unless_admitted(verdict: Verdict, start_undecided: bool) -> None:
    """NotAdmittedError with the first reason of a verdict that stops a start."""
    reasons = [r for r in verdict.reasons if r.decision == verdict.decision]
    if verdict.decision == "admitted" or (verdict.decision == "undecided" and start_undecided):
        return
    first, more = reasons[0], len(reasons) - 1
    place = f" ({first.file})" if first.file else ""
    rest = f" {more} more reason{'s' * (more > 1)}." if more else ""
    word = "does not admit this model" if verdict.decision == "refused" else "is not decided"
    raise NotAdmittedError(
        f"The policy {verdict.policy} {word}: {first.sentence}{place} [{first.rule}]{rest} "
        "'ingle audit MODEL' with the same --policy tells all; another --policy admits more."
    )


def _first(names: object) -> str:
    return str(names[0]) if isinstance(names, list) and names else ""
