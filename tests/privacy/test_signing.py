"""Signatures of our own: what they cover, what breaks them, and that model-signing reads them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from ingle.cli.main import main
from ingle.errors import SigningError
from ingle.privacy import signatures, signing
from ingle.privacy.digests import hash_files
from ingle.privacy.facts import Evidence
from ingle.privacy.signatures import verify_signatures
from ingle.privacy.signing import SIGNATURE, new_key, pae, sign_folder

pytestmark = pytest.mark.skipif(not signing.available(), reason="needs ingle[sign]")


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGLE_CACHE", str(tmp_path / "state"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for name, content in {
        "config.json": "{}", "model.safetensors": "weights", "sub/a": "1", "sub.b": "2",
        ".hidden": "h", ".gitattributes": "g",
    }.items():  # fmt: skip
        (folder / name).write_text(content)
    return folder


@pytest.fixture(params=["ed25519", "p256"])
def key(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "key"
    new_key(path, request.param)
    return path


def public(key: Path) -> str:
    return key.with_name(key.name + ".pub").read_text()


def rows(folder: Path, *keys: str) -> list[Evidence]:
    return verify_signatures(folder, hash_files(folder), keys)


def outcome(folder: Path, *keys: str) -> set[tuple[str, str]]:
    return {(row.status, row.file) for row in rows(folder, *keys)}


def test_a_signed_folder_is_verified_by_the_key_and_by_no_other(folder, key, tmp_path):
    sign_folder(folder, key)
    (row,) = rows(folder, public(key))
    assert (row.kind, row.status, row.file) == ("signature", "verified", SIGNATURE)
    assert "the 5 files that are here, but for 1" in row.sentence
    new_key(tmp_path / "other", "p256")
    (row,) = rows(folder, public(tmp_path / "other"))
    assert row.status == "unknown"
    assert "is not one you trust" in row.sentence
    assert outcome(folder) == {("unknown", SIGNATURE)}
    assert outcome(folder, public(tmp_path / "other"), public(key)) == {("verified", SIGNATURE)}


def test_every_change_of_a_file_is_told(folder, key):
    sign_folder(folder, key)
    for name in ("config.json", "model.safetensors", "sub/a", "sub.b", ".hidden"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole + b" ")
        assert outcome(folder, public(key)) == {("failed", name)}
        (folder / name).write_bytes(whole)
    (folder / "sub" / "new").write_text("x")
    assert outcome(folder, public(key)) == {("failed", "sub/new")}
    (folder / "sub" / "new").unlink()
    (folder / "sub.b").unlink()
    assert outcome(folder, public(key)) == {("failed", "sub.b")}


def test_any_changed_byte_of_the_signature_is_noticed(folder, key):
    path, files = sign_folder(folder, key), hash_files(folder)
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        for row in verify_signatures(folder, files, [public(key)]):
            if row.status == "verified":  # then what was changed says nothing: blanks, a key id
                old, new = json.loads(whole), json.loads(changed)
                assert old["dsseEnvelope"]["payload"] == new["dsseEnvelope"]["payload"]


def forged(folder: Path, key: Path, change) -> None:
    """Sign again after a change of the statement: what a trusted but careless signer could do."""
    bundle = json.loads((folder / SIGNATURE).read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    private = signing.read_private_key(key)
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    signature = base64.b64encode(signing._sign(private, pae(payload))).decode()
    bundle["dsseEnvelope"]["signatures"] = [{"sig": signature}]
    (folder / SIGNATURE).write_text(json.dumps(bundle))


def test_a_list_that_contradicts_itself_is_damaged(folder, key):
    sign_folder(folder, key)

    def change(statement):
        statement["subject"][0]["digest"]["sha256"] = "0" * 64

    forged(folder, key, change)
    (row,) = rows(folder, public(key))
    assert row.status == "failed"
    assert "contradicts itself" in row.sentence


def test_what_the_signer_left_out_is_counted(folder, key):
    sign_folder(folder, key)

    def change(statement):
        predicate = statement["predicate"]
        predicate["serialization"]["ignore_paths"].append("sub")
        kept = [r for r in predicate["resources"] if not r["name"].startswith("sub/")]
        predicate["resources"] = kept
        files = [signing.FileFact(path=r["name"], bytes=0, sha256=r["digest"]) for r in kept]
        statement["subject"] = signing.manifest("x", files, False)["subject"]

    forged(folder, key, change)
    (row,) = rows(folder, public(key))
    assert row.status == "verified"
    assert "the 4 files that are here, but for 2 that its signer left out" in row.sentence


@pytest.mark.parametrize(
    ("serialization", "said"),
    [({"method": "shards", "hash_type": "sha256", "shard_size": 1}, "sha256 over shards"),
     ({"method": "files", "hash_type": "blake3"}, "blake3 over files")],
)  # fmt: skip
def test_other_ways_of_hashing_are_not_checked_and_said_so(folder, key, serialization, said):
    sign_folder(folder, key)
    forged(folder, key, lambda s: s["predicate"].update(serialization=serialization))
    (row,) = rows(folder, public(key))
    assert row.status == "unknown"
    assert said in row.sentence


def test_certificates_are_left_to_others(folder, key):
    path = sign_folder(folder, key)
    bundle = json.loads(path.read_text())
    bundle["verificationMaterial"] = {"certificate": {"rawBytes": "AAAA"}, "tlogEntries": []}
    path.write_text(json.dumps(bundle))
    (row,) = rows(folder, public(key))
    assert row.status == "unknown"
    assert "certificate is not checked" in row.sentence


HOSTILE = [
    b"{", b"{}", b'{"mediaType": 1}', b"{" * 50_000, b'{"a":' * 50_000, b'{"dsseEnvelope": []}',
    b'{"mediaType":"x","verificationMaterial":[],"dsseEnvelope":{"payload":"e30=","signatures":[{"sig":""}],"payloadType":""}}',
    b'{"mediaType":"x","verificationMaterial":{},"dsseEnvelope":{"payload":"e30=","signatures":[],"payloadType":""}}',
    b'{"mediaType":"x","verificationMaterial":{},"dsseEnvelope":{"payload":"!","signatures":[{"sig":""}],"payloadType":""}}',
]  # fmt: skip


@pytest.mark.parametrize("raw", HOSTILE)
def test_junk_in_the_place_of_a_signature_is_damaged_never_an_exception(folder, key, raw):
    (folder / SIGNATURE).write_bytes(raw)
    assert outcome(folder, public(key)) == {("failed", SIGNATURE)}


def test_other_formats_are_unknown(folder, key):
    (folder / "weights.sig").write_bytes(b"\x88\x75\x04\x00")
    assert outcome(folder, public(key)) == {("unknown", "weights.sig")}


def test_without_the_extra_nothing_is_verified_and_the_extra_is_named(folder, key, monkeypatch):
    sign_folder(folder, key)
    monkeypatch.setattr(signatures, "available", lambda: False)
    (row,) = rows(folder, public(key))
    assert row.status == "unknown"
    assert "extra [sign]" in row.sentence
    monkeypatch.setattr(signing, "available", lambda: False)
    with pytest.raises(SigningError, match=r"pip install 'ingle\[sign\]'"):
        sign_folder(folder, key)


class TestKeys:
    def test_are_private_and_never_overwritten(self, tmp_path):
        path = tmp_path / "k"
        public_path = new_key(path, "ed25519")
        assert path.stat().st_mode & 0o777 == 0o600
        assert public_path == tmp_path / "k.pub"
        assert "PRIVATE" not in public_path.read_text()
        before = path.read_bytes()
        with pytest.raises(SigningError, match="never overwritten"):
            new_key(path, "p256")
        assert path.read_bytes() == before

    @pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\n", b"\xff" * 100])
    def test_junk_is_refused_and_never_quoted(self, tmp_path, content, folder):
        (tmp_path / "junk").write_bytes(content)
        for path in (tmp_path / "junk", tmp_path / "none", tmp_path):
            with pytest.raises(SigningError) as error:
                sign_folder(folder, path)
            assert str(tmp_path) not in str(error.value)

    def test_other_kinds_are_refused(self, tmp_path, folder):
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric import ec, rsa

        for key in (ec.generate_private_key(ec.SECP256K1()), rsa.generate_private_key(65537, 2048)):
            raw = key.private_bytes(
                form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
            )
            (tmp_path / "k").write_bytes(raw)
            with pytest.raises(SigningError, match="ed25519 or p256"):
                sign_folder(folder, tmp_path / "k")
            with pytest.raises(SigningError, match="no public key"):
                signing.read_public_key(signing.public_pem(key.public_key()))


def test_what_cannot_be_signed_is_said(folder, key):
    os.mkfifo(folder / "pipe")
    with pytest.raises(SigningError, match="pipe cannot be signed"):
        sign_folder(folder, key)
    (folder / "pipe").unlink()
    (folder / "out").symlink_to("/etc/passwd")
    with pytest.raises(SigningError, match="out cannot be signed"):
        sign_folder(folder, key)


def test_an_empty_folder_is_not_signed(tmp_path, key):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SigningError, match="no file to sign"):
        sign_folder(tmp_path / "empty", key)


class TestVerbs:
    def test_key_sign_verify(self, folder, tmp_path, capsys):
        key = tmp_path / "k"
        assert main(["sign", str(folder), "--new-key", str(key), "--json"]) == 0
        made = json.loads(capsys.readouterr().out)
        assert made["signature"] == str(folder / SIGNATURE)
        assert main(["verify", str(folder), "--key", f"{key}.pub", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["verified"] is True
        assert made["key"] in found["evidence"][0]["sentence"]
        assert main(["verify", str(folder)]) == 1  # nothing is verified without the key
        assert "Nothing proves" in capsys.readouterr().err
        (folder / "config.json").write_text("{ }")
        assert main(["verify", str(folder), "--key", f"{key}.pub"]) == 1
        said = capsys.readouterr()
        assert "failed   signature     config.json: " in said.out
        assert "contradicts" in said.err
        assert main(["sign", str(folder), "--key", str(key)]) == 0
        assert main(["verify", str(folder), "--key", f"{key}.pub"]) == 0

    @pytest.mark.parametrize(
        "argv", [[], ["x"], ["--key", "k"], ["x", "--key", "k", "--new-key", "n"]]
    )
    def test_wrong_usage_is_one_line(self, argv, capsys):
        assert main(["sign", *argv]) == 1
        assert capsys.readouterr().err.count("\n") == 1


THEIRS = os.environ.get("INGLE_MODEL_SIGNING") or shutil.which("model_signing")
needs_theirs = pytest.mark.skipif(
    not THEIRS, reason="needs `model_signing` (packages model-signing and pyOpenSSL)"
)


@pytest.mark.nightly
@needs_theirs
class TestModelSigning:
    """OpenSSF's own program on the same folders. Its wheel 1.1.1 forgets to ask for pyOpenSSL."""

    def theirs(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(THEIRS), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def verify(self, folder: Path, key: Path) -> str:
        done = self.theirs("verify", "key", folder, "--signature", folder / SIGNATURE,
                           "--public_key", f"{key}.pub")  # fmt: skip
        return done.stdout + done.stderr

    @pytest.fixture
    def p256(self, tmp_path):
        new_key(tmp_path / "p256", "p256")
        return tmp_path / "p256"

    def test_it_verifies_ours(self, folder, p256):
        sign_folder(folder, p256)
        assert "Verification succeeded" in self.verify(folder, p256)
        (folder / "sub" / "a").write_text("changed")
        assert "Verification failed" in self.verify(folder, p256)

    def test_we_verify_its(self, folder, p256):
        done = self.theirs("sign", "key", folder, "--signature", folder / SIGNATURE,
                           "--private_key", p256)  # fmt: skip
        assert "Signing succeeded" in done.stdout + done.stderr
        assert outcome(folder, public(p256)) == {("verified", SIGNATURE)}
        (folder / "sub" / "a").write_text("changed")
        assert outcome(folder, public(p256)) == {("failed", "sub/a")}

    def test_it_knows_no_ed25519(self, folder, tmp_path):
        """When this fails, the default kind of key is readable by it, too: say so in the docs."""
        new_key(tmp_path / "ed", "ed25519")
        sign_folder(folder, tmp_path / "ed")
        assert "Verification succeeded" not in self.verify(folder, tmp_path / "ed")


def test_the_extra_is_what_these_tests_use():
    assert find_spec("cryptography") is not None
