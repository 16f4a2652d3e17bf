"""ingle explain: the message and the token at which two prompts part."""

from __future__ import annotations

import json

import pytest

from ingle.cli.main import main


def body(*texts: str, **fields: object) -> str:
    roles = ["system", "user", "assistant", "user"]
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return json.dumps({"messages": messages, **fields})


@pytest.fixture
def explain(model_folder, tmp_path, capsys):
    def run(first: str, second: str, *options: str):
        paths = []
        for name, text in (("first.json", first), ("second.json", second)):
            (tmp_path / name).write_text(text)
            paths.append(str(tmp_path / name))
        code = main(["explain", *paths, "--model", str(model_folder), *options])
        return code, *capsys.readouterr()

    return run


def facts(explain, first: str, second: str) -> dict:
    code, out, _ = explain(first, second, "--json")
    assert code == 0
    return json.loads(out)


def test_a_changing_system_line_spoils_all_that_follows(explain):
    long = "Be kind and clear. " * 20
    first, second = (body(f"id {n}\n{long}", "hi") for n in (111, 222))
    found = facts(explain, first, second)
    assert found["diverges_at"]["message"] == 0
    assert found["diverges_at"]["first"].startswith("111")
    assert found["diverges_at"]["second"].startswith("222")
    assert found["cacheable_tokens"] == 0
    code, out, _ = explain(first, second)
    assert code == 0 and "in messages[0]" in out and "'222" in out


def test_a_changed_question_keeps_the_rest(explain):
    long = "Be kind and clear. " * 20
    found = facts(explain, body(long, "one"), body(long, "two"))
    assert found["diverges_at"]["message"] == 1
    assert found["shared_tokens"] > 64
    assert found["cacheable_tokens"] == found["shared_tokens"] // 64 * 64 > 0


def test_a_conversation_that_goes_on_parts_nowhere(explain):
    first = body("system", "question")
    found = facts(explain, first, first)
    assert found["diverges_at"] is None
    assert found["shared_tokens"] == found["prompt_tokens"]


def test_a_bad_body_is_named(explain):
    code, out, err = explain(body("s", "u"), "{")
    assert (code, out) == (1, "")
    assert "JSON" in err
