"""What may be admitted: `policy.toml`, a closed set of keys, and what it says of an audit."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec

from ingle.errors import PolicyError
from ingle.privacy.facts import WEIGHT_KINDS, Decision, Facts, Reason, Verdict
from ingle.privacy.policy_rules import RULES, Rule

PRESETS = ("personal", "workplace", "critical-infrastructure", "restricted")
_MAX_BYTES = 1 << 20
_MAX_BASES = 8
_MAX_REASONS = 20  # of one rule
_DIGEST = re.compile("(?:sha256:)?[0-9a-f]{64}")

Names = tuple[str, ...] | Literal["any"]
Ceiling = int | Literal["any"]


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every key of a policy; what each means stands in docs/policy.md. name: for the verdict."""

    name: str
    doubts: Literal["note", "undecided", "refuse"]
    start_undecided: bool
    network: Literal["none", "any"]
    formats: Names
    remote_code: Literal["never-run", "unneeded", "refuse"]
    native: bool
    architectures: Names
    names: Names
    models: Names
    refused_models: tuple[str, ...]
    max_parameters: Ceiling
    max_bytes: Ceiling
    dtypes: Names
    template: Literal["any", "known"]
    tokenizer: Literal["any", "checked"]
    digests: Literal["any", "unchanged", "known", "signed"]
    signing_keys: tuple[str, ...]
    attestation: Literal["optional", "required"]
    licences: Names
    licence_check: Literal["any", "agrees"]
    addresses: Literal["any", "documents", "none"]
    hidden_files: Literal["allow", "refuse"]
    behaviour_report: Literal["optional", "required"]


KEYS = tuple(field for field in Policy.__struct_fields__ if field != "name")


def load_policy(name_or_path: str) -> Policy:
    """A preset by its name, or a policy.toml by its path.

    A file names what differs from its `base` (a preset, "personal" if it names none). Raises
    PolicyError for a file that cannot be read, a key that no policy has and a value of the wrong
    kind, by the key's name.
    """
    if name_or_path in PRESETS:
        return _policy(name_or_path, _preset(name_or_path))
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        raise PolicyError(
            f"There is no policy {name_or_path!r}: give one of {', '.join(PRESETS)}, or a file."
        )
    keys = _parse(path.name, _read(path))
    base = keys.pop("base", "personal")
    if base not in PRESETS:
        raise PolicyError(f"{path.name}: base must be one of {', '.join(PRESETS)}.")
    return _policy(path.stem, _preset(str(base)) | keys)


def judge(
    facts: Facts, policy: Policy, sealed: bool | None = None, contents: bool = True
) -> Verdict:
    """What a policy says of facts, with every reason.

    sealed: whether the process that will run the model is; None for an audit, which runs none.
    contents: whether the facts are those of a whole audit; without, rules that ask for more rest.
    """
    reasons = []
    for rule in RULES:
        decision = rule.decision(policy)
        if decision is None or (rule.contents and not contents):
            continue
        found = list(rule.check(facts, policy, sealed))
        for sentence, file in found[:_MAX_REASONS]:
            reasons.append(Reason(rule=rule.id, decision=decision, sentence=sentence, file=file))
        if len(found) > _MAX_REASONS:
            rest = f"{len(found) - _MAX_REASONS} more of the same."
            reasons.append(Reason(rule=rule.id, decision=decision, sentence=rest))
    return Verdict(decision=_worst(reasons), policy=policy.name, reasons=tuple(reasons))


def needs_contents(policy: Policy) -> bool:
    """Whether files must be read in full to judge, or their names, sizes and config are enough.

    What is not looked at leaves no doubt: a policy that does not start in doubt asks for it all.
    """
    asked = any(rule.contents and rule.decision(policy) is not None for rule in RULES)
    return asked or not policy.start_undecided or policy.doubts == "refuse"


def rule_of(name: str) -> Rule:
    """A rule by its id."""
    return next(rule for rule in RULES if rule.id == name)


def _worst(reasons: list[Reason]) -> Decision:
    decisions: set[Decision] = {reason.decision for reason in reasons}
    for decision in ("refused", "undecided"):
        if decision in decisions:
            return decision  # type: ignore[return-value]
    return "admitted"


def _preset(name: str) -> dict[str, Any]:
    """The keys of a preset with those of its bases."""
    keys: dict[str, Any] = {}
    for _ in range(_MAX_BASES):
        raw = files("ingle.privacy").joinpath("policies", f"{name}.toml").read_bytes()
        keys = _parse(name, raw) | keys
        if "base" not in keys:
            break
        name = keys.pop("base")
    return keys


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size <= _MAX_BYTES:
            return path.read_bytes()
    except OSError:
        pass
    raise PolicyError(f"{path.name} cannot be read, or is larger than any policy.")


def _parse(name: str, raw: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"{name} is not valid TOML ({str(error)[:200]}).") from None


def _policy(name: str, keys: Mapping[str, Any]) -> Policy:
    if unknown := sorted(keys.keys() - set(KEYS)):
        near = get_close_matches(unknown[0], KEYS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(KEYS)}."
        raise PolicyError(f"{name}: no policy has a key {unknown[0]!r}; {hint}")
    try:
        policy = msgspec.convert({"name": name, **keys}, Policy)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise PolicyError(f"{name}: {where.rstrip('`') or 'a key'}: {what}.") from None
    _check(policy)
    return policy


def _check(policy: Policy) -> None:
    """What types cannot say."""
    for kind in () if policy.formats == "any" else policy.formats:
        if kind not in WEIGHT_KINDS:
            known = ", ".join(WEIGHT_KINDS)
            raise PolicyError(f"{policy.name}: formats: {kind!r} is none of {known}.")
    for key, digests in (("models", policy.models), ("refused_models", policy.refused_models)):
        for digest in () if digests == "any" else digests:
            if not _DIGEST.fullmatch(digest):
                raise PolicyError(
                    f"{policy.name}: {key}: {digest[:80]!r} is no digest of a folder, which "
                    "'ingle audit' prints."
                )
    for ceiling in (policy.max_parameters, policy.max_bytes):
        if ceiling != "any" and ceiling < 0:
            raise PolicyError(f'{policy.name}: a ceiling is a number from 0, or "any".')
    for pem in policy.signing_keys:
        if not pem.strip().startswith("-----BEGIN PUBLIC KEY-----"):
            raise PolicyError(
                f"{policy.name}: signing_keys: give the text of a .pub file, which begins with "
                "-----BEGIN PUBLIC KEY-----."
            )
