"""What `serve`, `chat`, `generate`, `batch` and `sft` ask before they load: the policy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ingle.cli.main import main
from ingle.errors import NotAdmittedError
from ingle.models.local import resolve_model
from ingle.privacy.admission import admit, outside_facts
from ingle.privacy.policy import Policy, load_policy, needs_contents


def policy(**keys: Any) -> Policy:
    """`personal` but for some keys."""
    base = msgspec.to_builtins(load_policy("personal"))
    return msgspec.convert(base | keys, Policy)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in resolve_model(None).glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"never read here")
    return tmp_path


def test_the_shipped_reasoner_starts_under_the_default() -> None:
    admit(resolve_model(None), load_policy("personal"), sealed=False)


def test_a_pickle_a_script_and_other_files_beside_the_weights_start_too(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (folder / "modeling.py").write_text("import os")
    (folder / "report.html").write_text("<p>")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("x")
    admit(folder, load_policy("personal"), sealed=True)


def test_names_sizes_and_config_are_enough_for_many_rules(folder: Path) -> None:
    facts = outside_facts(folder)
    assert facts.identity.model_type == "deepseek_v3"
    assert facts.identity.config_parameters == 4_465_000
    assert {file.sha256 for file in facts.files} == {""}
    for keys, rule in (
        ({"architectures": ["llama"]}, "architectures"),
        ({"max_parameters": 1}, "max_parameters"),
        ({"max_bytes": 9}, "max_bytes"),
        ({"names": ["x"]}, "names"),
        ({"network": "none"}, "network"),
    ):
        assert not needs_contents(policy(**keys))
        with pytest.raises(NotAdmittedError, match=rf"does not admit.*\[{rule}\]"):
            admit(folder, policy(**keys), sealed=False)


def test_rules_that_need_contents_rest(folder: Path) -> None:
    admit(folder, policy(digests="signed", licences=["MIT"], template="known"), sealed=True)


def test_a_pipe_deep_inside_stops_the_start(folder: Path) -> None:
    (folder / "deep").mkdir()
    os.mkfifo(folder / "deep" / "model.bin")
    with pytest.raises(NotAdmittedError, match=r"\(deep/model.bin\) \[finding\]"):
        admit(folder, load_policy("personal"), sealed=True)


@pytest.mark.parametrize("verb", ["chat", "generate", "serve"])
def test_the_verbs_ask_before_weights_are_read(
    verb: str, folder: Path, tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The weight file of this folder is junk: reading it would give another error."""
    path = tmp_path_factory.mktemp("policy") / "small.toml"
    path.write_text("max_parameters = 1000\n")
    extra = {"generate": ["-p", "x"], "serve": ["--port", "0"]}.get(verb, [])
    assert main([verb, str(folder), "--policy", str(path), "--json", *extra]) == 1
    out = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert out["error"]["code"] == "not_admitted"
    assert (
        "The policy small does not admit this model: 4,465,000 parameters"
        in (out["error"]["message"])
    )
    assert str(folder) not in out["error"]["message"]


@pytest.mark.slow
def test_a_policy_of_contents_audits_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a process of its own, with the seal that a process has once it is running."""
    monkeypatch.setenv("INGLE_CACHE", str(tmp_path / "state"))
    path = tmp_path / "ours.toml"
    path.write_text('digests = "signed"\n')
    argv = ["generate", "-p", "What is 1 + 1?", "--policy", str(path)]
    assert main(argv) == 1
    assert "No signature by a trusted key (the policy names 0)" in capsys.readouterr().err
    path.write_text('digests = "known"\n')
    assert main(argv) == 0
    assert capsys.readouterr().out.strip() == "2"


def test_a_parent_is_asked_for_before_it_is_trained_on(
    folder: Path, tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("policy") / "small.toml"
    path.write_text("max_parameters = 1000\n")
    out = folder / "out"
    argv = ["sft", "nano", "--parent", str(folder), "--out", str(out), "--policy", str(path)]
    assert main(argv) == 1
    assert "does not admit this model" in capsys.readouterr().err
    assert not out.exists()


def test_an_unknown_policy_is_an_error_of_the_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "--policy", "strictest"]) == 1
    assert "There is no policy 'strictest'" in capsys.readouterr().err
