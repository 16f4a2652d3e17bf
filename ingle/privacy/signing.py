"""Sign a model folder with a key of one's own, in the format of OpenSSF model-signing.

`model.sig` is a Sigstore bundle (v0.3, JSON): a DSSE envelope around an in-toto statement that
names every file of the folder with its SHA-256. `model_signing verify key` of the package
model-signing reads what a P-256 key signed; it knows no Ed25519. Needs the extra `[sign]`.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ingle.errors import SigningError
from ingle.privacy.digests import file_digest, list_entries
from ingle.privacy.facts import FileFact, text_of
from ingle.privacy.statement import STATEMENT_TYPE, write_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey
    PublicKey = EllipticCurvePublicKey | Ed25519PublicKey

SIGNATURE = "model.sig"
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
IGNORED = (".git", ".gitattributes", ".github", ".gitignore", SIGNATURE)
_MAX_KEY = 1 << 16
KeyKind = Literal["ed25519", "p256"]


def new_key(path: Path, kind: KeyKind) -> Path:
    """Write a private key (PEM, mode 0600) and, beside it, `.pub`; returns the latter's path.

    Raises SigningError where a file of either name exists: a key is never overwritten.
    """
    _need()
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    key: PrivateKey = (
        ed25519.Ed25519PrivateKey.generate()
        if kind == "ed25519"
        else ec.generate_private_key(ec.SECP256R1())
    )
    private = key.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
    )  # fmt: skip
    public = path.with_name(path.name + ".pub")
    _create(path, private, 0o600)
    _create(public, public_pem(key.public_key()), 0o644)
    return public


def sign_folder(folder: Path, key: Path) -> Path:
    """Write `model.sig` over every file of the folder; returns its path.

    Every file is read anew. Raises SigningError for an unusable key, and for a folder that holds
    what cannot be signed: pipes, links that lead out, names that are no text.
    """
    private = read_private_key(key)
    files, links = _files(folder)
    payload = json.dumps(manifest(folder.resolve().name, files, links)).encode()
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": key_hint(private.public_key())},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": b64encode(_sign(private, pae(payload))).decode(), "keyid": ""}],
        },
    }
    try:
        write_bytes(folder / SIGNATURE, json.dumps(bundle, indent=2).encode() + b"\n")
    except OSError as error:
        raise SigningError(f"{SIGNATURE} could not be written ({error.strerror}).") from None
    return folder / SIGNATURE


def manifest(name: str, files: Sequence[FileFact], links: bool) -> dict[str, Any]:
    """The in-toto statement over files: each with its digest, and a digest over these digests."""
    ordered = sorted(files, key=lambda file: file.path.split("/"))
    root = sha256(b"".join(bytes.fromhex(file.sha256) for file in ordered)).hexdigest()
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files", "hash_type": "sha256", "allow_symlinks": links,
                "ignore_paths": list(IGNORED),
            },
            "resources": [
                {"name": file.path, "algorithm": "sha256", "digest": file.sha256}
                for file in ordered
            ],
        },
    }  # fmt: skip


def pae(payload: bytes) -> bytes:
    """What DSSE signs: type and payload with their lengths, so that neither can pass for the other.

    https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md
    """
    return b"DSSEv1 %d %s %d %s" % (
        len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload,
    )  # fmt: skip


def ignored(path: str, paths: Sequence[str] = IGNORED) -> bool:
    """Whether a file is one of these, or lies in a folder that is."""
    return any(path == name or path.startswith(f"{name}/") for name in paths)


def key_hint(key: PublicKey) -> str:
    """The name of a key in a bundle: SHA-256 of its PEM form."""
    return sha256(public_pem(key)).hexdigest()


def public_pem(key: PublicKey) -> bytes:
    from cryptography.hazmat.primitives import serialization as form

    return key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)


def read_private_key(path: Path) -> PrivateKey:
    """An unencrypted PEM key; SigningError for anything but Ed25519 and NIST curves."""
    _need()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    raw = _read(path)
    try:
        key = load_pem_private_key(raw, None)
        hash_name(key.public_key())
    except Exception:  # a dozen types, none of which should tell what the file holds
        raise SigningError(
            "The key is no unencrypted private key (PEM) of the kinds ed25519 or p256. "
            "'ingle sign --new-key FILE' makes one."
        ) from None
    return key  # type: ignore[return-value]


def read_public_key(pem: bytes) -> PublicKey:
    """A PEM public key; SigningError for anything but Ed25519 and NIST curves."""
    _need()
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
        hash_name(key)
    except Exception:  # as above
        raise SigningError(
            "This is no public key (PEM) of the kinds ed25519 or p256; give the .pub file."
        ) from None
    return key  # type: ignore[return-value]


def read_key_file(path: Path) -> str:
    """The text of a public key file, once it is known to hold one."""
    raw = _read(path)
    read_public_key(raw)
    return raw.decode("ascii", "replace")


def is_signed_by(key: PublicKey, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ec.ECDSA(getattr(hashes, hash_name(key))()))
    except InvalidSignature:
        return False
    return True


def hash_name(key: Any) -> str:
    """The hash that goes with a key, "" for Ed25519, which has its own; TypeError for others."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    if isinstance(key, ed25519.Ed25519PublicKey):
        return ""
    if isinstance(key, ec.EllipticCurvePublicKey):
        names = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
        if key.curve.name in names:
            return names[key.curve.name]
    raise TypeError("of no use here")


def available() -> bool:
    """Whether the extra is installed."""
    try:
        import cryptography  # noqa: F401
    except ImportError:
        return False
    return True


def _need() -> None:
    if not available():
        raise SigningError(
            "Signatures need the package cryptography: pip install 'ingle[sign]'."
        )  # fmt: skip


def _sign(key: PrivateKey, message: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    return key.sign(message, ec.ECDSA(getattr(hashes, hash_name(key.public_key()))()))


def _files(folder: Path) -> tuple[list[FileFact], bool]:
    """Every file to be signed, and whether links are among them."""
    facts, links = [], False
    for entry in list_entries(folder):
        if ignored(entry.path):
            continue
        if entry.real is None or text_of(entry.path) != entry.path:
            raise SigningError(
                f"{text_of(entry.path)} cannot be signed: it is no plain file inside the folder, "
                "or its name is no text."
            )
        links |= (folder / entry.path).is_symlink()
        facts.append(
            FileFact(path=entry.path, bytes=entry.bytes, sha256=file_digest(entry.real))
        )  # fmt: skip
    if not facts:
        raise SigningError("The folder holds no file to sign.")
    return facts, links


def _read(path: Path) -> bytes:
    try:
        if path.is_file() and path.stat().st_size <= _MAX_KEY:
            return path.read_bytes()
    except OSError:
        pass
    raise SigningError(f"{path.name} is no key file that can be read.")


def _create(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise SigningError(f"{path.name} exists; a key is never overwritten.") from None
    except OSError as error:
        raise SigningError(f"{path.name} could not be written ({error.strerror}).") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
