"""Licence files and the model card, compared with what the releases of DeepSeek have.

This reads texts by a few phrases of each; it is no advice. Source of the table: the repositories
of the releases; R1's distills also carry the terms of the models they were made from.
"""

from __future__ import annotations

import re

from ingle.privacy.facts import Finding, Licence, text_of
from ingle.privacy.folder import Entry, read_file

_MAX_LICENCE = 1 << 20
DEEPSEEK = "LicenseRef-DeepSeek-Model"
_LLAMA = {version: f"LicenseRef-Llama-{version}" for version in ("3.1", "3.2", "3.3")}

# A phrase of a licence text, blanks and case evened out -> its id.
_PHRASES = {
    "permission is hereby granted, free of charge, to any person obtaining a copy": "MIT",
    "apache license version 2.0, january 2004": "Apache-2.0",
    "licensed under the apache license, version 2.0": "Apache-2.0",
    "deepseek license agreement": DEEPSEEK,
    **{f"llama {version} community license agreement": name for version, name in _LLAMA.items()},
    "attribution-noncommercial 4.0 international": "CC-BY-NC-4.0",
    "gnu affero general public license": "AGPL-3.0",
    "gnu general public license version 3": "GPL-3.0",
    "qwen research license agreement": "LicenseRef-Qwen-Research",
    "qwen license agreement": "LicenseRef-Qwen",
    "tongyi qianwen license agreement": "LicenseRef-Tongyi-Qianwen",
}
# `license`, or for "other" `license_name`, of a model card -> its id.
_DECLARED = {
    "mit": "MIT", "apache-2.0": "Apache-2.0", "deepseek": DEEPSEEK, "deepseek-license": DEEPSEEK,
    "llama3.1": _LLAMA["3.1"], "llama3.3": _LLAMA["3.3"], "cc-by-nc-4.0": "CC-BY-NC-4.0",
}  # fmt: skip
# A name of a release -> what it has; the first that matches, so the longer stand first.
_RELEASES = (
    (r"r1-distill-llama-8b", ("MIT", _LLAMA["3.1"])),
    (r"r1-distill-llama-70b", ("MIT", _LLAMA["3.3"])),
    (r"r1-distill-qwen|r1-0528-qwen3", ("MIT", "Apache-2.0")),
    (r"math-v2|ocr-2|engram", ("Apache-2.0",)),
    (r"deepseek-(r1|v3-0324|v3\.[12]|v4|ocr)", ("MIT",)),
    (r"deepseek-v3(-base)?$", (DEEPSEEK, "MIT")),
    (r"deepseek-(v2|coder|llm|moe|math)", (DEEPSEEK, "MIT")),
    (r"^ingle/|^reasoner$", ("MIT",)),
)
_CLAUSES = {
    "MIT": "MIT: the notice stays with copies; no restriction of use.",
    "Apache-2.0": "Apache-2.0: notices and changes are stated; a grant of patents that ends for "
    "who sues; no restriction of use.",
    DEEPSEEK: "DeepSeek Model License: restrictions of use, which go on to everything derived. "
    "DeepSeek's weights before V3-0324 and R1 have it, those since then are under MIT.",
    **{
        name: f"Llama {version} Community License: a policy of acceptable use, the notice 'Built "
        "with Llama', names that begin with Llama, and a limit by number of users."
        for version, name in _LLAMA.items()
    },
}


def read_licences(name: str, entries: list[Entry]) -> tuple[Licence, list[Finding]]:
    """What the licence files and the card of the model of this name say."""
    files = [e for e in entries if e.kind == "licence" and e.source is not None]
    found = {licence for entry in files for licence in _recognise(_text(entry))}
    card = next((e for e in entries if e.path.lower() == "readme.md" and e.source), None)
    declared = _declared(_text(card)) if card is not None else ""
    expected = next(
        (has for pattern, has in _RELEASES if re.search(pattern, name.lower())), ()
    )  # fmt: skip
    all_found = sorted(found | ({declared} if declared else set()))
    agrees = set(all_found) <= set(expected) if expected and all_found else None
    findings = []
    if not all_found:
        findings.append(_finding("licence.none", "No licence was recognised."))
    if agrees is False:
        sentence = f"Found {', '.join(all_found)}; this release has {', '.join(expected)}."
        findings.append(_finding("licence.differs", sentence))
    licence = Licence(
        files=tuple(entry.path for entry in files),
        recognised=tuple(sorted(found)),
        declared=declared,
        expected=expected,
        agrees=agrees,
        clauses=tuple(_CLAUSES[each] for each in all_found if each in _CLAUSES),
        sentence=_sentence(all_found, expected),
    )
    return licence, findings


def _sentence(found: list[str], expected: tuple[str, ...]) -> str:
    said = f"The folder says {', '.join(found)}" if found else "The folder names no known licence"
    if not expected:
        return f"{said}; ingle's table has no release of this name."
    return f"{said}; releases of this name have {', '.join(expected)}."


def _recognise(text: str) -> set[str]:
    even = re.sub(r"\s+", " ", text).lower()
    found = {licence for phrase, licence in _PHRASES.items() if phrase in even}
    if "LicenseRef-Tongyi-Qianwen" in found:
        found.discard("LicenseRef-Qwen")
    return found


def _declared(card: str) -> str:
    """The licence in the front matter of a card: the lines between two of three dashes."""
    lines = card.splitlines()
    if not lines or lines[0].strip() != "---":
        return ""
    values: dict[str, str] = {}
    for line in lines[1:200]:
        if line.strip() == "---":
            break
        key, colon, value = line.partition(":")
        if colon and key.strip() == key:
            values.setdefault(key, value.strip().strip("'\"").lower())
    licence = values.get("license", "")
    if licence == "other":
        licence = values.get("license_name", licence)
    return _DECLARED.get(licence, f"LicenseRef-{text_of(licence[:60])}" if licence else "")


def _text(entry: Entry) -> str:
    assert entry.source is not None
    return read_file(entry.source, _MAX_LICENCE).decode("utf-8", "replace")


def _finding(name: str, sentence: str) -> Finding:
    severity = "doubt" if name == "licence.differs" else "note"
    return Finding(id=name, severity=severity, file="", sentence=sentence)  # type: ignore[arg-type]
