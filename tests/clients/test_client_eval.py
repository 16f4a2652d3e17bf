"""`ingle eval --endpoint` against our own server: the same answers as from the folder."""

from __future__ import annotations

import json

import pytest
from serving import KEY, SCRIPTED, Live

from ingle.cli.main import main

ASKED = ["-n", "6", "--task", "sums", "--task", "letter_counting", "--json", "--seed", "3"]


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["eval", *ASKED, *arguments]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [[], ["--samples", "4", "--temperature", "1.5"]])
def test_over_http_the_answers_are_those_of_the_folder(
    reasoner: Live, capsys: pytest.CaptureFixture[str], sampling: list[str]
) -> None:
    """Greedy ones, and with the seeds that are sent along sampled ones, too."""
    here = found(capsys, *sampling, "--mistakes", "99")
    there = found(
        capsys, *sampling, "--mistakes", "99", "--unsealed", "--endpoint", reasoner.base,
        "--endpoint-model", reasoner.model,
    )  # fmt: skip
    assert here["tasks"] == there["tasks"]
    assert here["mistakes"] == there["mistakes"]
    assert here["mean_tokens"] == there["mean_tokens"] > 10
    if sampling:
        assert here["mistakes"]  # at this temperature some are, and their texts are compared


def test_a_server_that_wants_a_key_gets_it_from_the_file(
    locked: Live, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--unsealed", "--endpoint", locked.base, "--endpoint-model", SCRIPTED]
    assert main(["eval", *ASKED, *asked]) == 1
    reply = json.loads(capsys.readouterr().out)
    assert reply["error"]["code"] == "endpoint_failed"
    assert "key" in reply["error"]["message"]
    file = tmp_path / "key"
    file.write_text(KEY)
    assert found(capsys, *asked, "--key-file", str(file))["tasks"]["sums"]["n"] == 6


def test_it_is_said_that_questions_leave(
    scripted: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--unsealed", "--endpoint", scripted.base, "--endpoint-model", SCRIPTED]
    assert main(["eval", *ASKED, *asked]) == 0
    assert "Questions go to 127.0.0.1:" in capsys.readouterr().err


def test_without_the_flag_nothing_is_asked(
    scripted: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    before = scripted.service.stats().prompt_tokens
    asked = ["--endpoint", scripted.base, "--endpoint-model", SCRIPTED]
    assert main(["eval", *ASKED, *asked]) == 1
    assert "--unsealed" in capsys.readouterr().err
    assert scripted.service.stats().prompt_tokens == before
