"""What a checkpoint consists of, as a CycloneDX 1.6 bill of materials for machine learning.

https://cyclonedx.org/docs/1.6/json: one machine-learning-model with its model card, a component for
each file and each library. The bill holds the digest of the provenance statement, and its serial
number is drawn from its own content: a byte changed in either shows in one of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from ingle.privacy.facts import Evidence, FileFact
from ingle.privacy.statement import PROVENANCE, digest_of, read_canonical

BOM = "bom.cdx.json"
SPEC = "1.6"
_MODEL = "model"


def make_bom(
    name: str,
    version: str,
    config: Mapping[str, Any],
    subjects: Mapping[str, str],
    statement_digest: str,
    versions: Mapping[str, str],
    data: Sequence[str],
) -> dict[str, Any]:
    """The bill of one checkpoint.

    config: its config.json. subjects: file -> SHA-256. versions: library -> version. data: a
    sentence for each set it was trained on.
    """
    files = [
        {"type": "file", "bom-ref": f"file:{file}", "name": file, "hashes": [_hash(subjects[file])]}
        for file in sorted(subjects)
    ]
    libraries = [
        {
            "type": "library", "bom-ref": f"library:{library}", "name": library,
            "version": versions[library],
        }
        for library in sorted(versions)
    ]  # fmt: skip
    model = {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": name,
        "version": version,
        "modelCard": _card(config, data),
        "externalReferences": [
            {"type": "attestation", "url": PROVENANCE, "hashes": [_hash(statement_digest)]}
        ],
    }
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {"component": model},
        "components": files + libraries,
        "dependencies": [
            {
                "ref": _MODEL,
                "dependsOn": [component["bom-ref"] for component in files + libraries],
            }
        ],
    }
    return bill | {"serialNumber": serial_number(bill)}


def serial_number(bill: Mapping[str, Any]) -> str:
    """A UUID (RFC 9562, version 8) from the digest of a bill without its serial number."""
    rest = {key: value for key, value in bill.items() if key != "serialNumber"}
    bits = int(digest_of(rest)[:32], 16)
    bits = bits & ~(0xF << 76) | 8 << 76
    bits = bits & ~(0x3 << 62) | 2 << 62
    return f"urn:uuid:{UUID(int=bits)}"


def verify_bom(folder: Path, files: Sequence[FileFact]) -> list[Evidence]:
    """What the folder's bill of materials shows about its files; no row where there is none."""
    found = {file.path: file.sha256 for file in files}
    if BOM not in found:
        return []
    bill = read_canonical(folder / BOM) if found[BOM] else None
    if bill is None or bill.get("serialNumber") != serial_number(bill):
        return [_row("failed", "The bill of materials is not as it was written.")]
    try:
        claims = {
            component["name"]: component["hashes"][0]["content"]
            for component in bill["components"] if component["type"] == "file"
        }  # fmt: skip
        for reference in bill["metadata"]["component"]["externalReferences"]:
            claims[reference["url"]] = reference["hashes"][0]["content"]
    except (KeyError, TypeError, IndexError, AttributeError):
        return [_row("failed", "The bill of materials is not one that ingle wrote.")]
    wrong = [
        _row("failed", "The file is not the one in the bill of materials.", name)
        for name in sorted(claims)
        if found.get(name) != claims[name]
    ]
    return wrong or [_row("verified", f"All {len(claims)} files in the bill are unchanged.")]


def _card(config: Mapping[str, Any], data: Sequence[str]) -> dict[str, Any]:
    architectures = config.get("architectures") or [config.get("model_type", "unknown")]
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "text-generation",
            "architectureFamily": str(config.get("model_type", "unknown")),
            "modelArchitecture": str(architectures[0]),
            "datasets": [
                {"type": "dataset", "name": f"data-{index}", "description": sentence}
                for index, sentence in enumerate(data)
            ],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        }
    }


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest}


def _row(status: Any, sentence: str, file: str = BOM) -> Evidence:
    return Evidence(kind="bom", status=status, sentence=sentence, file=file)
