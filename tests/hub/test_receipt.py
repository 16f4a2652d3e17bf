"""The receipt against what the hub saw, and what must never be on it."""

from __future__ import annotations

import json

import pytest
from fake_hub import REPO, pull, receipt

from ingle.cli.main import main

TOKEN = "hf_0123456789thetoken"


def test_the_receipt_is_what_the_hub_saw(hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.cut_after = {"model.safetensors": [100_000]}
    hub.statuses = {"README.md": [500]}
    code, reply, _ = pull(capsys)
    assert code == 0
    assert receipt(reply) == sorted(seen.line for seen in hub.seen)
    assert len(hub.seen) == 1 + 5 + 1 + 3  # list, files, a retry, the redirects of two tries
    assert list(reply["requests"][0]) == ["method", "host", "path", "status", "received"]
    text = main(["pull", REPO]), capsys.readouterr().out
    assert f"/api/models/{REPO}/revision/main" in text[1]


@pytest.mark.parametrize("as_json", [True, False])
def test_the_receipt_of_a_failure(hub, capsys, as_json):
    hub.gated = True
    assert main(["pull", REPO, "--workers", "2", *["--json"] * as_json]) == 1
    out, err = capsys.readouterr()
    assert "Traceback" not in err and "gated" in err
    if as_json:
        assert receipt(json.loads(out)) == sorted(seen.line for seen in hub.seen)
    else:
        lines = [line.split() for line in out.splitlines()[1:]]
        assert {(line[0], line[4]) for line in lines} == {
            (s.method, s.host + s.path) for s in hub.seen
        }


def test_the_token_goes_to_the_hub_alone(hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.token = TOKEN
    outputs = []
    for options in ([], ["--json"], ["--dry-run"]):
        assert main(["pull", REPO, *options]) == 0
        outputs += capsys.readouterr()
    assert all(
        (s.headers.get("authorization") == f"Bearer {TOKEN}") is (not s.path.startswith("/storage"))
        for s in hub.seen
    )
    assert any(s.path.startswith("/storage") for s in hub.seen)
    hub.token = "another"
    assert main(["pull", REPO]) == 1
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\x01 odd")
    assert main(["pull", REPO]) == 1
    outputs += capsys.readouterr()
    assert "HF_TOKEN" in outputs[-1]
    assert not any(TOKEN in text or "s3cret-signature" in text for text in outputs)


def test_no_telemetry(hub, capsys):
    pull(capsys)
    agents = {seen.headers["user-agent"] for seen in hub.seen}
    assert all(agent.startswith("ingle/") and "torch" not in agent for agent in agents)
    assert not any("harness" in seen.path or "telemetry" in seen.path for seen in hub.seen)
