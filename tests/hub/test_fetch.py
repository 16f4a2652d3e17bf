"""What ingle pull fetches, resumes and checks, and what it leaves on disk."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from fake_hub import COMMIT, REPO, WEIGHTS, git_sha1, pull, sha256

from ingle.cli.main import main
from ingle.errors import ModelNotFoundError
from ingle.hub import fetch
from ingle.models import DeepseekV3Config, build_model, resolve_model, save_model
from ingle.training.tokenizer import build_tokenizer


def test_pulled_files_are_found_and_equal(hub, cache, capsys):
    code, reply, err = pull(capsys)
    assert (code, err) == (0, "")
    folder = resolve_model(REPO)
    assert folder == cache / "snapshots" / COMMIT == Path(reply["folder"])
    wanted = {"config.json", "tokenizer.json", "model.safetensors", "README.md", "LICENSE-MODEL"}
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == {
        name: hub.files[name] for name in wanted
    }
    assert {f["name"] for f in reply["files"]} == wanted
    assert (cache / "refs" / "main").read_text() == COMMIT
    # as huggingface_hub lays it out, so that its own tools find it, too
    blobs = {sha256(WEIGHTS), *(git_sha1(hub.files[n]) for n in wanted - hub.large)}
    assert {f.name for f in (cache / "blobs").iterdir()} == blobs
    assert all(f.is_symlink() and not f.readlink().is_absolute() for f in folder.iterdir())
    assert reply["serve"] == REPO


def test_huggingface_hub_finds_what_was_pulled(hub, cache, capsys):
    from huggingface_hub import hf_hub_download

    pull(capsys)
    requests = len(hub.seen)
    options = {"cache_dir": cache.parent, "local_files_only": True}
    file = Path(hf_hub_download(REPO, "model.safetensors", **options))
    assert file.read_bytes() == WEIGHTS
    assert len(hub.seen) == requests


def test_a_pulled_model_answers(hub, tmp_path, capsys):
    config = DeepseekV3Config(
        vocab_size=512, hidden_size=32, intermediate_size=48, moe_intermediate_size=16,
        num_hidden_layers=1, num_attention_heads=2, n_routed_experts=4, num_experts_per_tok=2,
        kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
        max_position_embeddings=64,
    )  # fmt: skip
    save_model(build_model(config), tmp_path / "made", torch.float32)
    build_tokenizer(tmp_path / "made")
    hub.files = {f.name: f.read_bytes() for f in (tmp_path / "made").iterdir()}
    hub.large = {name for name in hub.files if name.endswith(".safetensors")}
    assert pull(capsys)[0] == 0
    assert main(["generate", REPO, "-p", "47+85", "--raw", "--max-tokens", "2", "--json"]) == 0


def test_a_cut_connection_goes_on_where_it_ended(hub, capsys):
    hub.cut_after = {"model.safetensors": [100_000, 50_000]}
    code, _, _ = pull(capsys)
    gets = hub.gets("model.safetensors")
    assert code == 0
    assert [seen.headers.get("range") for seen in gets] == [None, "bytes=100000-", "bytes=150000-"]
    assert sum(seen.sent for seen in gets) == len(WEIGHTS)
    assert (resolve_model(REPO) / "model.safetensors").read_bytes() == WEIGHTS


@pytest.fixture
def hears_ctrl_c():
    """A shell that starts tests in the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_keeps_what_came_and_the_next_run_resumes(hub, cache, capsys):
    def press() -> None:
        # the client may still be reading what was sent
        deadline = time.monotonic() + 5
        while not partial.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)  # the connection stays open until the signal has been seen

    partial = cache / "blobs" / f"{sha256(WEIGHTS)}.ingle.incomplete"
    hub.cut_after, hub.on_cut = {"model.safetensors": [120_000]}, press
    code, reply, err = pull(capsys)
    assert (code, reply["error"]["code"]) == (1, "interrupted")
    assert "Traceback" not in err
    assert partial.read_bytes() == WEIGHTS[:120_000]
    with pytest.raises(ModelNotFoundError):  # half a model is no model
        resolve_model(REPO)
    code, reply, _ = pull(capsys, "--dry-run")
    states = {file["name"]: file["state"] for file in reply["files"]}
    assert states["model.safetensors"] == "partial"
    assert reply["bytes_to_fetch"] <= len(WEIGHTS) - 120_000 + 1000
    assert pull(capsys)[0] == 0
    gets = hub.gets("model.safetensors")
    assert gets[-1].headers["range"] == "bytes=120000-"
    assert sum(seen.sent for seen in gets) == len(WEIGHTS)
    assert not partial.exists()
    assert (resolve_model(REPO) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_hub_without_ranges_starts_over(hub, capsys):
    hub.cut_after, hub.ranges = {"model.safetensors": [100_000]}, False
    assert pull(capsys)[0] == 0
    assert (resolve_model(REPO) / "model.safetensors").read_bytes() == WEIGHTS


def test_busy_hubs_are_asked_again_and_lost_ones_given_up(hub, capsys):
    hub.statuses = {"config.json": [503, 429]}
    assert pull(capsys)[0] == 0
    assert [s.status for s in hub.gets("config.json")] == [503, 429, 200]
    shutil.rmtree(os.environ["HF_HUB_CACHE"])
    hub.statuses = {"config.json": [503] * fetch.TRIES}
    code, reply, _ = pull(capsys)
    assert (code, reply["error"]["code"]) == (1, "network_error")
    assert "config.json" in reply["error"]["message"]
    assert not hub.statuses["config.json"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("change", ["flip", "short", "long"])
def test_files_that_are_not_what_the_hub_names_are_deleted(hub, cache, capsys, name, change):
    data = hub.files[name]
    hub.served[name] = {"flip": data[:-1] + b"~", "short": data[:-1], "long": data + b"~"}[change]
    code, reply, err = pull(capsys, "--workers", "1")
    short = change == "short"  # cannot be told from a connection that is lost
    assert (code, reply["error"]["code"]) == (1, "network_error" if short else "digest_mismatch")
    assert name in reply["error"]["message"] and name in err
    digest = sha256(data) if name in hub.large else git_sha1(data)
    assert short or not [f for f in (cache / "blobs").iterdir() if f.name.startswith(digest)]
    assert not (cache / "blobs" / digest).exists()
    with pytest.raises(ModelNotFoundError):
        resolve_model(REPO)


def test_a_second_pull_checks_and_fetches_only_what_is_damaged(hub, cache, capsys):
    pull(capsys)
    files = len(hub.seen)
    code, reply, _ = pull(capsys)
    assert code == 0
    assert {file["state"] for file in reply["files"]} == {"verified"}
    assert len(hub.seen) == files + 1  # the list
    blob = cache / "blobs" / sha256(WEIGHTS)
    blob.write_bytes(b"~" + WEIGHTS[1:])
    code, reply, _ = pull(capsys)
    fetched = [file["name"] for file in reply["files"] if file["state"] == "fetched"]
    assert (code, fetched) == (0, ["model.safetensors"])
    assert (resolve_model(REPO) / "model.safetensors").read_bytes() == WEIGHTS
    # damaged again, and now it cannot be fetched: no link may lead nowhere
    blob.write_bytes(b"~" + WEIGHTS[1:])
    hub.gated = True
    assert pull(capsys)[0] == 1
    assert not os.path.lexists(cache / "snapshots" / COMMIT / "model.safetensors")


def test_equal_files_are_fetched_once_and_empty_ones_not_at_all(hub, capsys):
    hub.files |= {"vocab.json": b"{}", "empty.txt": b""}  # tokenizer.json has the same bytes
    assert pull(capsys)[0] == 0
    folder = resolve_model(REPO)
    assert (folder / "vocab.json").read_bytes() == (folder / "tokenizer.json").read_bytes() == b"{}"
    assert (folder / "empty.txt").read_bytes() == b""
    assert len(hub.gets("vocab.json") + hub.gets("tokenizer.json")) == 1
    assert not hub.gets("empty.txt")


def test_dry_run_lists_and_fetches_no_file(hub, tmp_path, capsys):
    code, reply, _ = pull(capsys, "--dry-run")
    assert code == 0
    assert [seen.path for seen in hub.seen] == [f"/api/models/{REPO}/revision/main"]
    assert not (tmp_path / "hub").exists()
    sizes = {file["name"]: file["bytes"] for file in reply["files"]}
    assert sizes["model.safetensors"] == len(WEIGHTS)
    assert reply["bytes_to_fetch"] == sum(sizes.values())
    assert {file["state"] for file in reply["files"]} == {"missing"}
    assert main(["pull", REPO, "--dry-run"]) == 0
    assert "300,000 B  model.safetensors" in capsys.readouterr().out


def test_hf_home_and_systems_without_symbolic_links(hub, tmp_path, monkeypatch, capsys):
    def symlink_to(*_: object) -> None:
        raise OSError("not here")

    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Path, "symlink_to", symlink_to)
    for state in ("fetched", "verified"):
        code, reply, _ = pull(capsys)
        assert (code, {file["state"] for file in reply["files"]}) == (0, {state})
    folder = resolve_model(REPO)
    assert folder.is_relative_to(tmp_path / "home" / "hub")
    assert not (folder / "model.safetensors").is_symlink()
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
