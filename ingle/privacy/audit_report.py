"""What an audit says to people: sections of sentences and tables, and their form as text.

Everything that comes from the folder is cleaned before it reaches a terminal: no control
characters, nothing invisible, nothing that turns the direction of writing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ingle.privacy.facts import Audit, Check, Facts

DECISIONS = {
    "admitted": "Admitted",
    "refused": "Refused",
    "undecided": "Not decided",
}


@dataclass(frozen=True)
class Section:
    """A part of the report; the columns name what each row of the table holds."""

    title: str
    sentences: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def headline(audit: Audit) -> str:
    """The verdict in one line."""
    decision = DECISIONS[audit.verdict.decision]
    name = clean(audit.facts.identity.name)
    return f"{decision} by the policy {clean(audit.verdict.policy)}: {name}"


def sections(audit: Audit) -> Iterator[Section]:
    """All of the report, the reasons first."""
    facts, verdict = audit.facts, audit.verdict
    yield Section(
        "Reasons",
        () if verdict.reasons else ("No rule of the policy speaks against it.",),
        ("rule", "decision", "why", "file"),
        tuple((r.rule, r.decision, r.sentence, r.file) for r in verdict.reasons),
    )
    yield _identity(facts)
    yield Section(
        "Findings",
        () if facts.findings else ("Nothing odd was found.",),
        ("severity", "finding", "file", "what"),
        tuple((f.severity, f.id, f.file, f.sentence) for f in facts.findings),
    )
    yield Section(
        "Code that other programs would run",
        () if facts.code else ("None.",),
        ("file", "kind", "reaches", "names", "what"),
        tuple(
            (c.file, c.kind, ", ".join(c.reach), ", ".join((*c.imports, *c.calls)), c.sentence)
            for c in facts.code
        ),
    )
    yield Section(
        "Addresses in text files",
        ("None is contacted; under the seal none could be.",) if facts.addresses else ("None.",),
        ("file", "kind", "address", "times"),
        tuple((a.file, a.kind, a.text, str(a.count)) for a in facts.addresses),
    )
    yield Section(
        "Where it comes from",
        () if facts.provenance else ("Nothing to check against: unverified.",),
        ("evidence", "status", "file", "what"),
        tuple((e.kind, e.status, e.file, e.sentence) for e in facts.provenance),
    )
    yield _licence(facts)
    yield _template(facts)
    yield Section(
        "Tokenizer",
        (
            f"{facts.tokenizer.vocabulary:,} tokens, {facts.tokenizer.merges:,} merges, "
            f"{facts.tokenizer.specials:,} special tokens.",
        ),
        *_checks(facts.tokenizer.checks),
    )
    dtypes = ", ".join(f"{count:,} {dtype}" for dtype, count in facts.weights.dtypes.items())
    yield Section(
        "Weights",
        (
            f"{facts.weights.tensors:,} tensors in {facts.weights.files:,} safetensors files, "
            f"{facts.weights.bytes:,} bytes" + (f": {dtypes}." if dtypes else "."),
        ),
        *_checks(facts.weights.checks),
    )
    yield Section(
        "Files",
        (f"{len(facts.files):,} entries; digest of all: {facts.digest}.",),
        ("sha256", "bytes", "kind", "path"),
        tuple((f.sha256 or "-", f"{f.bytes:,}", f.kind, f.path) for f in facts.files),
    )


def text_lines(audit: Audit) -> Iterator[tuple[str, bool]]:
    """The report line by line, each with whether it is a heading."""
    yield headline(audit), True
    for section in sections(audit):
        yield "", False
        yield section.title, True
        for sentence in section.sentences:
            yield f"  {clean(sentence)}", False
        rows = [tuple(map(clean, row)) for row in section.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(min(width, 64)) for cell, width in zip(row, widths, strict=True))
            yield "  " + "  ".join(cells).rstrip(), False


def clean(text: str) -> str:
    """Text that does nothing to a terminal: what is not printable is written as an escape."""
    return "".join(
        character if character.isprintable() else f"\\u{{{ord(character):x}}}" for character in text
    )


def _identity(facts: Facts) -> Section:
    known = facts.identity
    agree = "as claimed" if known.recognised == known.model_type else "not as claimed"
    found = f"{known.recognised or 'none'} ({agree})"
    own = "yes" if known.supported else "no"
    return Section(
        "Identity",
        (known.sentence,),
        ("what", "value"),
        (
            ("name", known.name),
            ("claimed by config.json", f"{known.model_type or 'none'} {known.architecture}"),
            ("recognised by its tensors", found),
            ("parameters in the files", f"{known.parameters:,}"),
            ("parameters by config.json", f"{known.config_parameters:,}"),
            ("ingle has its own code for it", own),
        ),
    )


def _licence(facts: Facts) -> Section:
    return Section("Licence", (facts.licence.sentence, *facts.licence.clauses))


def _template(facts: Facts) -> Section:
    template = facts.template
    ours = f"ingle's encoder {template.encoder}"
    said = {
        "absent": "There is none.",
        "same": f"On {template.conversations} conversations it writes what {ours} writes.",
        "differs": f"It writes another prompt than {ours}: {template.difference}",
        "hostile": "It tried to leave the sandbox, or took more than it was granted.",
        "undecided": "It was not compared.",
    }[template.status]
    used = "ingle uses its own encoder, never the template."
    return Section("Chat template", (said, used), ("file", "sha256"), _template_rows(facts))


def _template_rows(facts: Facts) -> tuple[tuple[str, ...], ...]:
    return ((facts.template.file, facts.template.sha256),) if facts.template.file else ()


def _checks(checks: tuple[Check, ...]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    return ("check", "status", "what"), tuple((c.id, c.status, c.sentence) for c in checks)
