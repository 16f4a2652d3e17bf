"""Check the signatures that lie in a model folder against its files and the keys one trusts."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ingle.errors import SigningError
from ingle.privacy.facts import Evidence, FileFact
from ingle.privacy.signing import (
    MEDIA_TYPE,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    available,
    ignored,
    is_signed_by,
    key_hint,
    pae,
    read_public_key,
)
from ingle.privacy.statement import STATEMENT_TYPE

_ENDS = (".sig", ".sigstore", ".sigstore.json")
_MAX_BYTES = 64 << 20
_GIT = (".git", ".gitattributes", ".github", ".gitignore")


@dataclass(frozen=True)
class Bundle:
    """A signature file taken apart. hint: name of its key, "" without one. digests: path ->
    SHA-256. ignored: paths that the signer left out."""

    payload: bytes
    signature: bytes
    hint: str
    certificate: bool
    digests: dict[str, str]
    ignored: tuple[str, ...]


def verify_signatures(
    folder: Path, files: Sequence[FileFact], keys: Sequence[str] = ()
) -> list[Evidence]:
    """A row or more for each signature file at the top of the folder.

    keys: public keys (PEM) that are trusted. verified: a trusted key signed these very files.
    """
    names = [f.path for f in files if "/" not in f.path and f.path.endswith(_ENDS) and f.sha256]
    return [row for name in names for row in _verify(folder, name, files, keys)]


def _verify(
    folder: Path, name: str, files: Sequence[FileFact], keys: Sequence[str]
) -> list[Evidence]:
    raw = _read(folder / name)
    if raw is None or not raw.lstrip().startswith(b"{"):
        return [_row("unknown", "A signature of another format than model-signing's.", name)]
    try:
        bundle = parse_bundle(raw)
    except NotImplementedError as error:
        return [_row("unknown", f"The signature uses {error}, which is not checked here.", name)]
    except ValueError as error:
        return [_row("failed", f"The signature is damaged: {error}.", name)]
    left_out = (name, *_GIT, *bundle.ignored)
    found = {f.path: f.sha256 for f in files if not ignored(f.path, left_out)}
    unsigned = sum(f.path != name and ignored(f.path, left_out) for f in files)
    wrong = [
        _row("failed", _difference(path, found, bundle.digests), path)
        for path in sorted(found.keys() | bundle.digests.keys())
        if found.get(path) != bundle.digests.get(path)
    ]
    return wrong or [_signer(bundle, name, keys, unsigned)]


def parse_bundle(raw: bytes) -> Bundle:
    """Take a bundle apart and check it against itself, not against files or keys.

    Raises ValueError for a damaged one, NotImplementedError for what only others can check.
    """
    try:
        bundle = json.loads(raw)
        media, material = bundle["mediaType"], bundle["verificationMaterial"]
        envelope = bundle["dsseEnvelope"]
        payload = b64decode(envelope["payload"], validate=True)
        (signature,) = (b64decode(s["sig"], validate=True) for s in envelope["signatures"])
        kind, statement = envelope["payloadType"], json.loads(payload)
        hint = str((material.get("publicKey") or {}).get("hint") or "")
        certificate = "certificate" in material or "x509CertificateChain" in material
        if statement["_type"] != STATEMENT_TYPE or kind != PAYLOAD_TYPE:
            raise ValueError("it holds no in-toto statement")
        predicate = statement["predicateType"]
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("a field is missing or of another kind") from None
    except ValueError as error:
        raise ValueError(
            str(error) if "in-toto" in str(error) else "it cannot be decoded"
        ) from None
    if media != MEDIA_TYPE:
        raise NotImplementedError("another version of the bundle format")
    if predicate != PREDICATE_TYPE:
        raise NotImplementedError("another kind of statement than model-signing 1.0")
    digests, left_out = _manifest(statement)
    return Bundle(payload, signature, hint, certificate, digests, left_out)


def _manifest(statement: dict[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    try:
        serialization = statement["predicate"]["serialization"]
        method = serialization["method"], serialization["hash_type"]
        if method != ("files", "sha256"):
            raise NotImplementedError(f"{method[1]} over {method[0]}"[:80])
        resources = statement["predicate"]["resources"]
        digests = {str(entry["name"]): str(entry["digest"]) for entry in resources}
        whole = sha256(b"".join(bytes.fromhex(entry["digest"]) for entry in resources))
        (subject,) = statement["subject"]
        left_out = tuple(map(str, serialization.get("ignore_paths", ())))
        if len(digests) != len(resources) or subject["digest"]["sha256"] != whole.hexdigest():
            raise ValueError
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ValueError("its list of files contradicts itself") from None
    return digests, left_out


def _signer(bundle: Bundle, name: str, keys: Sequence[str], unsigned: int) -> Evidence:
    """Who signed, once the files are known to be those signed."""
    count = f"It names the {len(bundle.digests)} files that are here"
    if unsigned:
        count += f", but for {unsigned} that its signer left out"
    if bundle.certificate:
        return _row("unknown", f"{count}; its certificate is not checked here.", name)
    if not available():
        return _row("unknown", f"{count}; checking its key needs the extra [sign].", name)
    for pem in keys:
        key = read_public_key(pem.encode())
        if bundle.hint not in ("", key_hint(key)):
            continue
        if is_signed_by(key, bundle.signature, pae(bundle.payload)):
            return _row("verified", f"{count}, signed by the trusted key {key_hint(key)}.", name)
        if bundle.hint:
            return _row("failed", "It names a trusted key, which did not sign it.", name)
    return _row("unknown", f"{count}; its key {bundle.hint[:64]} is not one you trust.", name)


def _difference(path: str, found: dict[str, str], signed: dict[str, str]) -> str:
    if path not in signed:
        return "The file was added after the folder was signed."
    if path not in found:
        return "The signature names this file, which is missing."
    return "The file is not the one that was signed."


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.stat().st_size <= _MAX_BYTES else None
    except OSError:
        return None


def _row(status: Any, sentence: str, file: str) -> Evidence:
    return Evidence(kind="signature", status=status, sentence=sentence, file=file)


def check_keys(keys: Sequence[str]) -> None:
    """SigningError for a text that is no public key."""
    for pem in keys:
        if "-----BEGIN PUBLIC KEY-----" not in pem:
            raise SigningError("A trusted key must be a public key in PEM form.")
