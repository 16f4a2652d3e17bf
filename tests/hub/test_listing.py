"""What is fetched and what is left out, also from lists that mean harm."""

from __future__ import annotations

import pytest
from fake_hub import COMMIT, REPO, pull, sha256

from ingle.cli.main import main
from ingle.hub.listing import why_not


def test_code_and_pickles_are_named_and_never_asked_for(hub, capsys):
    assert main(["pull", REPO]) == 0
    out = capsys.readouterr().out
    left_out = out[out.index("Left out") : out.index("Receipt")]
    for name in ("modeling_tiny.py", "pytorch_model.bin", "original/model.safetensors"):
        assert name in left_out
        assert not any(name in seen.path for seen in hub.seen)
    assert sha256(hub.files["pytorch_model.bin"]) not in str(hub.seen)
    assert "code" in left_out and "pickle" in left_out and "subfolder" in left_out


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("model-00001-of-00163.safetensors", True), ("tokenizer.model", True), ("merges.txt", True),
     ("qwen.tiktoken", True), ("LICENSE", True), ("LICENSE-CODE", True), ("README.md", True),
     ("LICENSE.py", False), ("license.BIN", False), ("Model.PY", False), ("x.pt", False),
     ("optimizer.PTH", False), ("chat_template.jinja", False), ("inference/config.json", False),
     ("../../evil.json", False), ("/etc/evil.json", False), ("..\\evil.json", False),
     ("c:evil.json", False), (".hidden.json", False), ("a\x1b[2J.json", False),
     (".gitattributes", False), ("model.gguf", False)],
)  # fmt: skip
def test_what_is_wanted(name, wanted):
    assert (why_not(name) is None) is wanted


def test_hostile_names_write_nothing_outside(hub, tmp_path, capsys):
    hub.files["../../../evil.json"] = hub.files["a\x1b[2J.json"] = b"{}"
    assert main(["pull", REPO]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    "change",
    [{"blobId": "../../../evil"}, {"blobId": None}, {"size": None}, {"size": -1}, {"sha": "../ev"}],
    ids=str,
)
def test_hostile_digests_and_commits_are_refused(hub, tmp_path, capsys, change):
    def hostile(reply: dict) -> dict:
        place = reply if "sha" in change else reply["siblings"][0]
        place.update(change)
        return reply

    hub.change_list = hostile
    code, reply, _ = pull(capsys)
    assert (code, reply["error"]["code"]) == (1, "pull_failed")
    assert ("commit" if "sha" in change else "config.json") in reply["error"]["message"]
    assert not list(tmp_path.iterdir())


def test_revisions(hub, cache, capsys):
    code, reply, _ = pull(capsys, "--revision", "refs/pr/1")
    assert code == 0
    assert (cache / "refs" / "refs" / "pr" / "1").read_text() == COMMIT
    code, reply, _ = pull(capsys, "--revision", "v9")
    assert (code, reply["error"]["code"]) == (1, "repository_not_found")
    assert "'v9'" in reply["error"]["message"] and "--revision" in reply["error"]["message"]
