"""The facts of an audit: a versioned schema that policies, people and other programs read.

Everything in it is a function of the files alone: no time, no absolute path, no machine. So the
same folder gives the same bytes. A change that a reader could notice raises the version.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Literal

import msgspec

SCHEMA: Literal["ingle.audit/1"] = "ingle.audit/1"

Severity = Literal["refuse", "doubt", "note"]
"""refuse: no policy admits it. doubt: the audit could not decide. note: a policy may care."""

WEIGHT_KINDS = (
    *("safetensors", "pickle", "numpy", "gguf", "hdf5", "onnx", "msgpack", "llamafile"),
    *("keras", "tensorflow", "tflite", "torchscript", "archive", "compressed"),
)
"""Kinds of files that hold weights, or may: a policy names those it admits."""

Decision = Literal["admitted", "refused", "undecided"]


class _Fact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all: immutable, unknown keys refused when read."""


class Identity(_Fact, frozen=True, kw_only=True):
    """What the folder says it is, and what its tensors say."""

    name: str
    """Repository id where the folder lies in a hub cache, else the folder's name."""
    model_type: str
    """`model_type` of config.json, "" without one."""
    architecture: str
    """The first of `architectures` of config.json, "" without one."""
    recognised: str
    """The model_type that tensor names and shapes belong to, "" where none fits."""
    supported: bool
    """Whether ingle has its own model code for `model_type`: nothing in the folder need run."""
    parameters: int
    """Numbers in the weight files, scales of fp8 squares and MTP modules included."""
    config_parameters: int
    """What config.json says the main model has, 0 where it cannot be read."""
    sentence: str
    """What this model is and what it is not: "R1" or an R1 distill."""


class FileFact(_Fact, frozen=True, kw_only=True):
    """One entry of the folder."""

    path: str
    """Relative to the folder, "/" between; `text_of` applied."""
    bytes: int
    sha256: str
    """Of the content, in hex; "" for what is no regular file inside the folder."""
    kind: str = ""
    """One of `ingle.privacy.kinds.KINDS`; set by the audit."""


class CodeFact(_Fact, frozen=True, kw_only=True):
    """Something that other programs would run. ingle runs none of it."""

    file: str
    kind: Literal["auto_map", "python", "pickle", "other"]
    imports: tuple[str, ...] = ()
    """Modules (of a pickle: the global names it asks for), sorted."""
    calls: tuple[str, ...] = ()
    """Names of what is called that reaches beyond computing, sorted."""
    reach: tuple[str, ...] = ()
    """Of: network, process, dynamic (exec, eval, import by name), native (ctypes), files."""
    sentence: str


class Address(_Fact, frozen=True, kw_only=True):
    """An address in a text file. Nothing is contacted; sealed, nothing could be."""

    file: str
    kind: Literal["url", "ip", "host"]
    text: str
    count: int


class Evidence(_Fact, frozen=True, kw_only=True):
    """One row of provenance."""

    kind: str
    """hub-cache, known-release, signature, attestation, bom ..."""
    status: Literal["verified", "failed", "unknown"]
    """failed: the files contradict it. unknown: there is nothing to check against."""
    sentence: str
    file: str = ""


class Licence(_Fact, frozen=True, kw_only=True):
    """What the licence files and the model card say, and what the known releases have."""

    files: tuple[str, ...] = ()
    recognised: tuple[str, ...] = ()
    """SPDX ids (or LicenseRef-...) of the licence texts found, sorted."""
    declared: str = ""
    """`license` of the model card's front matter."""
    expected: tuple[str, ...] = ()
    """What the release of this name has by ingle's table, () for an unknown name."""
    agrees: bool | None = None
    """None: nothing to compare."""
    clauses: tuple[str, ...] = ()
    """Where the licences of DeepSeek's generations differ, for what was found."""
    sentence: str = ""


class Template(_Fact, frozen=True, kw_only=True):
    """The chat template, compared with the encoder that ingle uses instead."""

    file: str = ""
    sha256: str = ""
    encoder: str = ""
    """ingle's encoder for this folder, "" where none fits."""
    status: Literal["absent", "same", "differs", "hostile", "undecided"] = "absent"
    """hostile: it tried to leave the sandbox, or hit its limits of time or memory."""
    conversations: int = 0
    """How many were rendered and compared."""
    difference: str = ""
    """The first difference: the conversation, and both texts around it."""


class Check(_Fact, frozen=True, kw_only=True):
    """One check with its outcome."""

    id: str
    status: Literal["ok", "failed", "undecided"]
    sentence: str


class Tokenizer(_Fact, frozen=True, kw_only=True):
    """tokenizer.json, looked at as data and tried in a limited child."""

    file: str = ""
    vocabulary: int = 0
    merges: int = 0
    specials: int = 0
    checks: tuple[Check, ...] = ()


class Weights(_Fact, frozen=True, kw_only=True):
    """The safetensors files by their headers."""

    files: int = 0
    tensors: int = 0
    bytes: int = 0
    dtypes: dict[str, int] = {}
    """Numbers of each dtype."""
    checks: tuple[Check, ...] = ()


class Finding(_Fact, frozen=True, kw_only=True):
    """Something to know about one file; the ids are listed in docs/audit.md."""

    id: str
    severity: Severity
    file: str
    sentence: str


class Seen(_Fact, frozen=True, kw_only=True):
    """What looking at one file, or at one thing, adds to the facts."""

    code: tuple[CodeFact, ...] = ()
    addresses: tuple[Address, ...] = ()
    findings: tuple[Finding, ...] = ()


class Facts(_Fact, frozen=True, kw_only=True):
    """Everything the audit saw."""

    digest: str
    """Of all files: `manifest_digest`."""
    identity: Identity
    files: tuple[FileFact, ...]
    code: tuple[CodeFact, ...] = ()
    addresses: tuple[Address, ...] = ()
    provenance: tuple[Evidence, ...] = ()
    licence: Licence = Licence()
    template: Template = Template()
    tokenizer: Tokenizer = Tokenizer()
    weights: Weights = Weights()
    behaviour_report: str = ""
    """SHA-256 of a behaviour report that names this very `digest`, "" without one."""
    findings: tuple[Finding, ...] = ()


class Reason(_Fact, frozen=True, kw_only=True):
    """A rule that decided, and why."""

    rule: str
    """Id of the rule."""
    decision: Decision
    sentence: str
    file: str = ""


class Verdict(_Fact, frozen=True, kw_only=True):
    """What a policy says about the facts; without a reason against it, a model is admitted."""

    decision: Decision
    policy: str
    """The policy's name."""
    reasons: tuple[Reason, ...] = ()


class Audit(_Fact, frozen=True, kw_only=True):
    """The whole report, as `ingle audit --json` prints it."""

    schema: Literal["ingle.audit/1"] = SCHEMA
    facts: Facts
    verdict: Verdict


def json_schema() -> dict[str, Any]:
    """JSON Schema of an `Audit`."""
    return msgspec.json.schema(Audit)


def manifest_digest(files: Iterable[FileFact]) -> str:
    """SHA-256 over the lines `<sha256>  <path>` of all files, sorted by path."""
    rows = sorted((file.path, file.sha256) for file in files)
    return sha256("".join(f"{digest}  {path}\n" for path, digest in rows).encode()).hexdigest()


def text_of(name: str) -> str:
    """A file name (or other text from a file) that JSON can hold: lone surrogates, which stand for
    bytes that are no UTF-8, are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


if __name__ == "__main__":
    import json

    print(json.dumps(json_schema(), indent=1))
