"""What training writes beside a checkpoint: true, the same every time, and telling when touched."""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
import shutil
import socket
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from ingle.models.deepseek_v3 import DeepseekV3Config
from ingle.privacy import source, statement
from ingle.privacy.audit import audit
from ingle.privacy.bom import BOM, serial_number, verify_bom
from ingle.privacy.digests import hash_files
from ingle.privacy.facts import Evidence
from ingle.privacy.policy import judge, load_policy
from ingle.privacy.statement import PROVENANCE, canonical, digest_of, verify_statement
from ingle.training import origin
from ingle.training.data import Mixture
from ingle.training.loop import Run, train

SHAPE = DeepseekV3Config(
    vocab_size=512, hidden_size=32, intermediate_size=48, moe_intermediate_size=16,
    num_hidden_layers=2, num_attention_heads=2, n_routed_experts=4, num_experts_per_tok=2,
    kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
    num_nextn_predict_layers=1, max_position_embeddings=256,
)  # fmt: skip
RUN = Run(
    "small", SHAPE, Mixture({"sums": 1.0}, chat=False), 4, batch_tokens=256,
    longest=128, warmup=2, decay=0.5, save_every=2, streams=1,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INGLE_CACHE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("runs") / "base"
    train(RUN, folder, compiled=False, processes=1)
    return folder


@pytest.fixture(scope="module")
def tuned(base: Path) -> Path:
    folder = base.parent / "tuned"
    train(replace(RUN, name="tuned", parent=base, steps=1), folder, compiled=False, processes=1)
    return folder


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def evidence(folder: Path) -> list[Evidence]:
    files = hash_files(folder)
    return verify_statement(folder, files) + verify_bom(folder, files)


def failed(folder: Path) -> set[tuple[str, str]]:
    return {(row.kind, row.file) for row in evidence(folder) if row.status == "failed"}


def read(folder: Path) -> dict:
    return json.loads((folder / PROVENANCE).read_text("utf-8"))


def sources(folder: Path) -> dict[str, dict]:
    build = read(folder)["predicate"]["buildDefinition"]
    return {entry["name"]: entry for entry in build["resolvedDependencies"]}


def test_a_checkpoint_states_what_it_is_and_that_is_verified(base):
    rows = evidence(base)
    assert [(row.kind, row.status) for row in rows] == [
        ("attestation", "verified"), ("bom", "verified"),
    ]  # fmt: skip
    assert "step 4 of the run 'small' from random weights" in rows[0].sentence
    written = read(base)
    assert written["_type"] == "https://in-toto.io/Statement/v1"
    assert written["predicateType"] == "https://slsa.dev/provenance/v1"
    named = {entry["name"]: entry["digest"]["sha256"] for entry in written["subject"]}
    on_disk = {file.path: file.sha256 for file in hash_files(base)}
    assert set(named) == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "training.safetensors",
    }  # fmt: skip
    assert named == {name: on_disk[name] for name in named}
    build = written["predicate"]["buildDefinition"]
    assert build["externalParameters"]["seed"] == RUN.seed
    assert build["externalParameters"]["mixture"]["weights"] == {"sums": 1.0}
    assert build["internalParameters"]["step"] == 4
    assert sources(base)["code"]["digest"]["sha256"] == source.code_digest()
    assert written["predicate"]["runDetails"]["builder"]["version"]["torch"]


def test_the_data_are_named_by_what_decides_them(base):
    data = sources(base)["data"]
    assert data["digest"]["sha256"] == digest_of(data["annotations"])
    assert data["annotations"]["generators"] == source.code_digest("tasks")


def test_a_parent_is_named_by_its_files(base, tuned):
    on_disk = {file.path: file.sha256 for file in hash_files(base)}
    parents = {
        name.removeprefix("parent/"): entry["digest"]["sha256"]
        for name, entry in sources(tuned).items()
        if name.startswith("parent/")
    }
    assert set(parents) == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", PROVENANCE,
    }  # fmt: skip
    assert parents == {name: on_disk[name] for name in parents}
    assert "5 files of a parent" in evidence(tuned)[0].sentence


def test_a_resumed_run_states_the_same_to_the_byte(base, tmp_path):
    train(RUN, tmp_path, compiled=False, processes=1, stop_after=1)
    assert read(tmp_path)["predicate"]["buildDefinition"]["internalParameters"]["step"] == 1
    train(RUN, tmp_path, compiled=False, processes=1)
    for name in (PROVENANCE, BOM):
        assert (tmp_path / name).read_bytes() == (base / name).read_bytes(), name


def test_going_on_with_other_code_or_choices_is_told(tmp_path, monkeypatch):
    train(RUN, tmp_path, compiled=False, processes=1, stop_after=1)
    monkeypatch.setattr(origin, "code_digest", lambda room="": "0" * 64)
    train(RUN, tmp_path, compiled=False, processes=1, stop_after=2)
    train(replace(RUN, steps=3), tmp_path, compiled=False, processes=1)
    build = read(tmp_path)["predicate"]["buildDefinition"]
    codes = [entry for entry in build["resolvedDependencies"] if entry["name"] == "code"]
    assert [entry["annotations"]["fromStep"] for entry in codes] == ["0", "1", "2"]
    assert codes[0]["digest"]["sha256"] == source.code_digest()
    assert codes[1]["digest"] == codes[2]["digest"]
    assert codes[1]["annotations"]["parameters"] != codes[2]["annotations"]["parameters"]
    assert {row.status for row in evidence(tmp_path)} == {"verified"}


def test_weights_that_are_only_rewritten_name_what_they_were(base, tmp_path):
    folder = Path(shutil.copytree(base, tmp_path / "shipped"))
    (folder / "training.safetensors").unlink()
    origin.derived_from(base, "shipped", {"name": "ship", "dtype": "bfloat16"}).write(folder, 4)
    assert {row.status for row in evidence(folder)} == {"verified"}
    assert "step 4 of the run 'ship' from 5 files of a parent" in evidence(folder)[0].sentence


def test_without_git_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "git_commit", lambda: source.git_commit(tmp_path))
    train(replace(RUN, steps=1), tmp_path, compiled=False, processes=1)
    assert set(sources(tmp_path)["code"]["digest"]) == {"sha256"}
    assert "at commit unknown" in evidence(tmp_path)[0].sentence


def test_no_path_host_user_or_time_is_in_it(base, tuned):
    for folder in (base, tuned):
        for name in (PROVENANCE, BOM):
            text = (folder / name).read_text("utf-8")
            for secret in (str(folder), str(folder.parent), str(Path.home()), os.getcwd()):
                assert len(secret) < 3 or secret not in text
            host, user = socket.gethostname(), getpass.getuser()
            assert f'"{host}"' not in text
            assert f'"{user}"' not in text
            assert platform.platform() not in text
            assert "time" not in text.lower()
            assert not re.search(r"\d{4}-\d\d-\d\d|\d\d:\d\d", text)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "training.safetensors"]
)
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_a_changed_byte_of_a_file_shows_in_both(copy, name, place):
    content = bytearray((copy / name).read_bytes())
    content[int(place * len(content)) if place > 0 else place] ^= 1
    (copy / name).write_bytes(content)
    assert failed(copy) == {("attestation", name), ("bom", name)}


@pytest.mark.parametrize("name", [PROVENANCE, BOM])
def test_any_changed_byte_of_statement_or_bill_shows(copy, name):
    path = copy / name
    whole, files = path.read_bytes(), hash_files(copy)
    (own,) = [file for file in files if file.path == name]
    rest = [file for file in files if file.path != name]
    for place in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        now = [*rest, msgspec.structs.replace(own, sha256=sha256(changed).hexdigest())]
        assert [row for row in verify_bom(copy, now) if row.status == "failed"], place


def test_a_missing_or_added_file_of_weights_shows(copy):
    shutil.copyfile(copy / "model.safetensors", copy / "extra.safetensors")
    assert failed(copy) == {("attestation", "extra.safetensors")}
    (copy / "extra.safetensors").unlink()
    (copy / "tokenizer.json").unlink()
    assert failed(copy) == {("attestation", "tokenizer.json"), ("bom", "tokenizer.json")}


HOSTILE = [
    {}, {"_type": statement.STATEMENT_TYPE}, {"subject": []}, {"_type": 1, "predicateType": []},
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
def test_other_objects_are_no_statement(copy, value):
    (copy / PROVENANCE).write_bytes(canonical(value))
    assert ("attestation", PROVENANCE) in failed(copy)


@pytest.mark.parametrize("raw", [b"", b"[" * 100_000, b"\xff\xfe", b"null\n", b'{"a":1,"a":2}'])
def test_junk_is_no_statement_and_no_bill(copy, raw):
    (copy / PROVENANCE).write_bytes(raw)
    (copy / BOM).write_bytes(raw)
    assert failed(copy) == {("attestation", PROVENANCE), ("bom", BOM)}


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("subject", 0, "digest"), "x"), (("subject", 0, "name"), 1), (("subject",), []),
        (("predicate", "buildDefinition", "buildType"), "other"),
        (("predicate", "buildDefinition", "externalParameters", "seed"), 9),
        (("predicate", "buildDefinition", "internalParameters", "step"), -1),
        (("predicate", "buildDefinition", "internalParameters", "step"), True),
        (("predicate", "buildDefinition", "resolvedDependencies"), [1]),
        (("predicate", "buildDefinition", "resolvedDependencies", 0, "digest"), 1),
        (("predicate", "runDetails"), None),
    ],
)  # fmt: skip
def test_fields_of_another_kind_are_refused_without_an_exception(copy, keys, value):
    whole = read(copy)
    inner = whole
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (copy / PROVENANCE).write_bytes(canonical(whole))
    assert ("bom", PROVENANCE) in failed(copy)
    if keys[-1] != "runDetails":  # nothing to check there but the bill's digest
        assert ("attestation", PROVENANCE) in failed(copy)


def test_the_bill_is_cyclonedx(base):
    bill = json.loads((base / BOM).read_text("utf-8"))
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert bill["serialNumber"] == serial_number(bill)
    model = bill["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == (
        "machine-learning-model", "small", "step-4",
    )  # fmt: skip
    card = model["modelCard"]["modelParameters"]
    assert (card["architectureFamily"], card["modelArchitecture"]) == (
        "deepseek_v3", "DeepseekV3ForCausalLM",
    )  # fmt: skip
    references = [component["bom-ref"] for component in bill["components"]]
    assert bill["dependencies"][0]["dependsOn"] == references
    assert len(set(references)) == len(references) == 5 + 6


def test_an_audit_of_a_trained_folder_raises_no_alarm(base):
    found = audit(base, load_policy("personal"))
    assert found.verdict.reasons == ()
    strict = msgspec.structs.replace(load_policy("personal"), addresses="none", digests="unchanged")
    assert judge(found.facts, strict).decision == "admitted"


def test_a_folder_without_either_has_no_rows(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert evidence(tmp_path) == []


class TestCommit:
    """Git's files, in every layout that git writes."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    def git(self, root: Path, head: str) -> Path:
        (root / ".git" / "refs" / "heads").mkdir(parents=True)
        (root / ".git" / "HEAD").write_text(head)
        return root / ".git"

    def test_of_this_checkout_if_it_is_one(self):
        expected = (source.PACKAGE.parent / ".git").exists()
        assert (source.git_commit() != "unknown") == expected

    def test_loose_packed_detached(self, tmp_path):
        git = self.git(tmp_path, "ref: refs/heads/main\n")
        assert source.git_commit(tmp_path) == "unknown"
        (git / "packed-refs").write_text(
            f"# pack-refs\n{'f' * 40} x\n{self.COMMIT} refs/heads/main\n"
        )
        assert source.git_commit(tmp_path) == self.COMMIT
        (git / "refs" / "heads" / "main").write_text("a" * 40 + "\n")
        assert source.git_commit(tmp_path) == "a" * 40
        (git / "HEAD").write_text(self.COMMIT + "\n")
        assert source.git_commit(tmp_path) == self.COMMIT
        (git / "HEAD").write_text("junk\n")
        assert source.git_commit(tmp_path) == "unknown"

    def test_a_linked_worktree(self, tmp_path):
        git = self.git(tmp_path / "main", "ref: refs/heads/main\n")
        (git / "refs" / "heads" / "side").write_text(self.COMMIT)
        own = git / "worktrees" / "side"
        own.mkdir(parents=True)
        (own / "HEAD").write_text("ref: refs/heads/side\n")
        (own / "commondir").write_text("../..\n")
        (tmp_path / "side").mkdir()
        (tmp_path / "side" / ".git").write_text(f"gitdir: {own}\n")
        assert source.git_commit(tmp_path / "side") == self.COMMIT


def test_the_code_digest_sees_every_source(tmp_path, monkeypatch):
    (tmp_path / "room" / "__pycache__").mkdir(parents=True)
    monkeypatch.setattr(source, "PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "room" / "b.cpp").write_text("2")
    first, room = source.code_digest(), source.code_digest("room")
    (tmp_path / "room" / "__pycache__" / "b.py").write_text("3")
    (tmp_path / "data.bin").write_text("4")
    assert (source.code_digest(), source.code_digest("room")) == (first, room)
    (tmp_path / "a.py").write_text("5")
    assert source.code_digest() != first
    assert source.code_digest("room") == room
