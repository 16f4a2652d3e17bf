"""What the Responses API cannot honour is refused by name, and nothing breaks it."""

from __future__ import annotations

import json
import logging
import random
from typing import Any

import pytest

from tests.server.responding import (
    TOOLS,
    ask,
    serve_v41,
    usual,
)


@pytest.fixture(scope="module")
def served(start, scripted):
    with serve_v41(start, scripted) as running:
        yield running


@pytest.fixture
def v41(served):
    return usual(served)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"bogus": 1}, "bogus"),
    ({"model": "other"}, "model"),
    ({"input": None}, "input"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_output_tokens": 1 << 20}, "input"),
    ({"max_tokens": 5}, "max_tokens"),
    ({"max_tool_calls": 0}, "max_tool_calls"),
    ({"temperature": 3}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"include": ["file_search_call.results"]}, "include"),
    ({"n": 2}, "n"),
    ({"truncation": "auto"}, "truncation"),
    ({"service_tier": "flex"}, "service_tier"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "x"}}, "prompt"),
    ({"moderation": {"model": "x"}}, "moderation"),
    ({"background": True, "stream": True}, "stream"),
    ({"background": True, "store": False}, "store"),
    ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
    (
        {"stream": True, "stream_options": {"include_usage": True}},
        "stream_options.include_usage",
    ),
    ({"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
    ({"metadata": {"k" * 65: "x"}}, "metadata"),
    ({"metadata": {"k": "x" * 513}}, "metadata"),
    ({"metadata": {"k": 1}}, "metadata[...]"),
    ({"reasoning": {"effort": "weird"}}, "reasoning.effort"),
    ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
    ({"reasoning": {"bogus": 1}}, "reasoning.bogus"),
    ({"text": {"verbosity": "low"}}, "text.verbosity"),
    ({"text": {"format": {"type": "regex"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_object"}}}, "text.format"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
    (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": 5}}}},
        "text.format.schema",
    ),
    ({"input": "json", "text": {"format": {"type": "json_object"}}, "tools": TOOLS}, "text.format"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [*TOOLS, {"type": "mcp", "server_url": "x"}]}, "tools[1].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
    ({"tools": [{"type": "function", "name": "a", "parameters": []}]}, "tools[0].parameters"),
    ({"tools": [{"type": "function", "function": {"name": "a"}}]}, "tools[0].function"),
    ({"tools": TOOLS * 2}, "tools"),
    ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "b"}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "web_search"}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": "bogus"}, "tool_choice"),
    ({"tool_choice": "required", "reasoning": {"effort": "none"}}, "tool_choice"),
]


@pytest.mark.parametrize(("body", "param"), REFUSED, ids=[str(b)[:60] for b, _ in REFUSED])
def test_what_cannot_be_honoured_is_refused_by_name(v41, body, param):
    seen = len(v41.engine.seen)
    reply = v41.client.post("/v1/responses", json={"input": "hi", **body})
    assert reply.status_code in (400, 404), reply.text
    assert reply.json()["error"]["param"] == param
    assert len(v41.engine.seen) == seen


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("?stream=true", "stream"),
        ("?starting_after=3", "starting_after"),
        ("?include=message.output_text.logprobs", "include"),
        ("?include[]=x", "include"),
        ("/input_items?order=up", "order"),
        ("/input_items?limit=0", "limit"),
        ("/input_items?limit=101", "limit"),
        ("/input_items?limit=1e1", "limit"),
        ("/input_items?after=nothing", "after"),
        ("/input_items?before=x", "before"),
    ],
)
def test_queries_are_refused_by_name(v41, path, param):
    id_ = ask(v41)["id"]
    reply = v41.client.get(f"/v1/responses/{id_}{path}")
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_harmless_queries_are_answered(v41):
    id_ = ask(v41)["id"]
    for query in ("?stream=false", "?include[]=reasoning.encrypted_content"):
        assert v41.client.get(f"/v1/responses/{id_}{query}").status_code == 200


def test_hostile_bodies_are_refused_and_nothing_breaks(v41, caplog):
    lot = random.Random(3)
    scraps: list[Any] = [None, True, -1, 1e300, "", "secret", [], {}, [[]], [None], {"type": []}]
    scraps += [{"type": "message"}, {"role": "user", "content": [{}]}, "x" * 5000, 2**70]
    whole = {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "secret"}]}],
        "instructions": "secret",
        "tools": TOOLS,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "reasoning": {"effort": "none", "summary": "auto"},
        "metadata": {"secret": "secret"},
        "previous_response_id": None,
        "include": ["message.output_text.logprobs"],
        "tool_choice": {"type": "function", "name": "get"},
        "max_output_tokens": 3,
    }

    def broken(value: Any) -> Any:
        if lot.random() < 0.05:
            return lot.choice(scraps)
        if isinstance(value, dict):
            return {key: broken(inner) for key, inner in value.items() if lot.random() < 0.9}
        return [broken(inner) for inner in value] if isinstance(value, list) else value

    statuses = set()
    with caplog.at_level(logging.DEBUG, logger="ingle"):
        for _ in range(200):
            body, headers = json.dumps(broken(whole)), {"Content-Type": "application/json"}
            reply = v41.client.post("/v1/responses", content=body, headers=headers)
            statuses.add(reply.status_code)
            if reply.status_code != 200:
                assert "secret" not in reply.text
        deep = b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        for raw in (deep, b"", b"[]", b'"x"', b'{"input": "\xff"}', b'{"input": NaN}'):
            reply = v41.client.post("/v1/responses", content=raw, headers=headers)
            assert reply.status_code == 400
    assert statuses == {200, 400}
    assert "secret" not in caplog.text
    assert ask(v41)["status"] == "completed"
