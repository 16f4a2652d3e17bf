"""X-Explain-Prefix on a real engine: at which message the cached beginning ended, and why."""

from __future__ import annotations

import json

import pytest

from ingle.engine.llm import LLM

SYSTEM = "Answer in one line, and count with care. " * 12


@pytest.fixture(scope="module")
def reasoner(start):
    with start(LLM(max_sequences=4).engine) as running:
        yield running


def ask(live, system: str, question: str, path: str = "/v1/chat/completions", **fields: object):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    body = {"messages": messages, "max_tokens": 4, **fields}
    reply = live.client.post(path, json=body, headers={"X-Explain-Prefix": "1"})
    assert reply.status_code == 200, reply.text
    return json.loads(reply.headers["x-prefix"]), reply


def test_the_first_request_is_like_nothing_before(reasoner):
    told, reply = ask(reasoner, "unique " + SYSTEM, "1+1=", user="first")
    assert (told["cached_tokens"], told["reason"]) == (0, "nothing like it was seen")
    assert told["prompt_tokens"] == reply.json()["usage"]["prompt_tokens"]


def test_a_changed_question_diverges_in_its_message(reasoner):
    ask(reasoner, SYSTEM, "Sort " + "31, " * 50)
    told, reply = ask(reasoner, SYSTEM, "Order " + "31, " * 50)
    assert told["reason"] == "diverged"
    assert (told["message"], told["in_tools"]) == (1, False)
    assert told["cached_tokens"] == reply.json()["usage"]["prompt_cache_hit_tokens"] > 0
    assert told["cached_tokens"] <= told["matched_tokens"] < told["prompt_tokens"]


def test_a_changing_system_line_is_found(reasoner):
    ask(reasoner, "id 17; " + SYSTEM, "3+3=")
    told, _ = ask(reasoner, "id 18; " + SYSTEM, "3+3=")
    assert (told["message"], told["cached_tokens"]) == (0, 0)
    assert told["matched_tokens"] < 10


def test_another_user_shares_nothing(reasoner):
    ask(reasoner, SYSTEM, "4+4=")
    told, _ = ask(reasoner, SYSTEM, "4+4=", user="someone else")
    assert told["cached_tokens"] == 0


@pytest.mark.parametrize("path", ["/anthropic/v1/messages", "/v1/completions", "/v1/responses"])
def test_every_dialect_explains(reasoner, path):
    bodies = {
        "/anthropic/v1/messages": {"messages": [{"role": "user", "content": "5+5="}]},
        "/v1/completions": {"prompt": "5+5="},
        "/v1/responses": {"input": "5+5="},
    }
    name = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    for stream in (False, True):
        body = bodies[path] | {name: 4, "stream": stream}
        reply = reasoner.client.post(path, json=body, headers={"X-Explain-Prefix": "1"})
        assert reply.status_code == 200, reply.text
        assert json.loads(reply.headers["x-prefix"])["reason"]


def test_nobody_is_told_unasked(reasoner):
    body = {"messages": [{"role": "user", "content": "6+6="}], "max_tokens": 4}
    assert "x-prefix" not in reasoner.client.post("/v1/chat/completions", json=body).headers
