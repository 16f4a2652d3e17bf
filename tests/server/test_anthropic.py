"""Anthropic's Messages over HTTP: whole and streamed replies, tools, counts, refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.calling import TOKENIZER, allows, calling

QUESTION = [{"role": "user", "content": "Weather?"}]
OFF = {"type": "disabled"}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [{"name": "get", "description": "D", "input_schema": SCHEMA}]
CALL = (
    '\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="get">\n<｜DSML｜parameter name="city" '
    'string="true">Köln</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>'
)
REPLY = f"I look it up.\n</think>\n\nLet me see.{CALL}"
PATHS = ("/v1/messages", "/messages", "/anthropic/v1/messages")


@pytest.fixture(scope="module")
def live(start, scripted) -> Iterator[Any]:
    with calling(start, scripted, "deepseek_v4", REPLY) as running:
        yield running


def post(live, path: str = "/v1/messages", **fields: Any):
    return live.client.post(path, json={"max_tokens": 500, "messages": QUESTION, **fields})


def events(reply) -> list[dict[str, Any]]:
    frames = [frame.split("\n") for frame in reply.text.strip().split("\n\n")]
    assert all(len(frame) == 2 for frame in frames)
    out = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [name for name, _ in frames] == [f"event: {event['type']}" for event in out]
    return out


def prompt(live) -> str:
    return TOKENIZER.decode(live.engine.seen[-1].prompt, skip_special=False)


@pytest.mark.parametrize("path", PATHS)
def test_a_whole_reply(live, path):
    message = post(live, path, tools=TOOLS).json()
    thinking, text, use = message["content"]
    assert thinking["thinking"] == "I look it up."
    assert thinking["signature"] == message["id"] and message["id"].startswith("msg_")
    assert text == {"type": "text", "text": "Let me see."}
    assert re.fullmatch(r"call_00_[a-zA-Z0-9]{20}", use.pop("id"))
    assert use == {"type": "tool_use", "name": "get", "input": {"city": "Köln"}}
    assert (message["stop_reason"], message["stop_sequence"]) == ("tool_use", None)
    assert (message["type"], message["role"], message["model"]) == (
        "message",
        "assistant",
        "test-model",
    )
    usage = message["usage"]
    assert usage["cache_read_input_tokens"] == 3
    assert usage["input_tokens"] + 3 == len(live.engine.seen[-1].prompt)


@pytest.mark.parametrize("path", PATHS)
def test_a_stream(live, path):
    got = events(post(live, path, tools=TOOLS, stream=True))
    kinds = [event["type"] for event in got]
    assert kinds[:3] == ["message_start", "content_block_start", "ping"]
    assert kinds[-2:] == ["message_delta", "message_stop"]
    blocks: list[dict[str, Any]] = []
    fields = {"thinking_delta": "thinking", "text_delta": "text", "signature_delta": "signature"}
    arguments, open_ = "", None
    for event in got:
        if event["type"] == "content_block_start":
            assert open_ is None and event["index"] == len(blocks)
            open_ = event["index"]
            blocks.append(event["content_block"])
        elif event["type"] == "content_block_stop":
            assert event["index"] == open_
            open_ = None
        elif event["type"] == "content_block_delta":
            assert event["index"] == open_
            delta = event["delta"]
            if delta["type"] == "input_json_delta":
                arguments += delta["partial_json"]
            else:
                blocks[-1][fields[delta["type"]]] += delta[fields[delta["type"]]]
    blocks[-1]["input"] = json.loads(arguments)
    whole = post(live, path, tools=TOOLS).json()
    for made in (blocks, whole["content"]):
        made[0].pop("signature"), made[-1].pop("id")
    assert blocks == whole["content"]
    assert got[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert got[-2]["usage"] == whole["usage"]


def test_without_thinking(start, scripted):
    with calling(start, scripted, "deepseek_v4", "Hi there") as live:
        message = post(live, thinking=OFF).json()
        assert message["content"] == [{"type": "text", "text": "Hi there"}]
        assert message["stop_reason"] == "end_turn"
        assert prompt(live).endswith("</think>")
        kinds = [event["type"] for event in events(post(live, thinking=OFF, stream=True))]
        assert kinds[1:3] == ["content_block_start", "ping"]
        cut = post(live, thinking=OFF, max_tokens=2).json()
        assert (cut["content"][0]["text"], cut["stop_reason"]) == ("Hi", "max_tokens")


def test_more_tokens_than_the_context_are_cut_to_it(live):
    assert post(live, max_tokens=10**7).status_code == 200
    params = live.engine.seen[-1].params
    assert params.max_tokens == live.engine.context - len(live.engine.seen[-1].prompt)
    assert post(live).status_code == 200
    assert live.engine.seen[-1].params.max_tokens == 500


def test_sampling_reaches_the_engine(live):
    fields = {"temperature": 0.3, "top_p": 0.5, "top_k": 7, "stop_sequences": ["a", "b"]}
    assert post(live, **fields).status_code == 200
    params = live.engine.seen[-1].params
    assert (params.temperature, params.top_p, params.top_k) == (0.3, 0.5, 7)
    assert params.stop == ("a", "b") and not params.stop_window.open


def test_the_loop_of_tools(live):
    first = post(live, tools=TOOLS).json()
    use = first["content"][-1]
    result = {"type": "tool_result", "tool_use_id": use["id"], "content": "rain"}
    messages = [
        *QUESTION,
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [result, {"type": "text", "text": "so?"}]},
    ]
    assert post(live, tools=TOOLS, messages=messages).status_code == 200
    assert prompt(live).endswith(
        f"<｜User｜>Weather?<｜Assistant｜><think>I look it up.</think>Let me see.{CALL}"
        "<｜end▁of▁sentence｜><｜User｜><tool_result>rain</tool_result>\n\nso?<｜Assistant｜><think>"
    )


def test_choices_of_tools(live):
    def grammar(**fields: Any):
        reply = post(live, tools=TOOLS, **fields)
        assert reply.status_code == 200, reply.text
        return live.engine.seen[-1].params.grammar

    thought = "so</think>"
    assert grammar(tool_choice={"type": "auto"}) is None
    assert grammar(tool_choice={"type": "none"}) is None and "get" not in prompt(live)
    any_ = grammar(tool_choice={"type": "any"})  # with thinking, unlike Chat Completions
    assert allows(any_, thought + CALL) and not allows(any_, thought + "text")
    named = grammar(tool_choice={"type": "tool", "name": "get"}, thinking=OFF)
    assert allows(named, CALL) and not allows(named, "text")
    single = grammar(tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    call = CALL.partition("calls>\n")[2].rpartition("</｜DSML｜tool")[0]
    assert allows(any_, thought + CALL.replace(call, call + call))
    assert not allows(single, thought + CALL.replace(call, call + call))
    assert allows(single, thought + CALL) and allows(single, thought + "text")
    refused = post(live, tools=TOOLS, tool_choice={"type": "tool", "name": "get"})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "Thinking mode does not support this tool_choice"


def test_strict_tools_and_formats_are_bound(live):
    strict = [{**TOOLS[0], "strict": True}]
    assert post(live, tools=strict, thinking=OFF).status_code == 200
    grammar = live.engine.seen[-1].params.grammar
    assert allows(grammar, CALL) and allows(grammar, "text")
    assert not allows(grammar, CALL.replace("city", "town"))
    config = {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert post(live, output_config=config, thinking=OFF).status_code == 200
    grammar = live.engine.seen[-1].params.grammar
    assert allows(grammar, '{"city": "x"}') and not allows(grammar, '{"city": 1}')
    assert "## Response Format" in prompt(live)


def test_efforts(live):
    for config, text in (({"effort": "max"}, "Beyond maximum"), ({}, "Absolute maximum")):
        reply = post(live, output_config=config)
        assert "x-ignored-fields" not in reply.headers
        assert text in prompt(live)
    assert post(live, output_config={"effort": "none"}).status_code == 200
    assert prompt(live).endswith("</think>")


def test_ignored_fields_are_named(live, start, scripted):
    budget = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
    assert post(live, **budget).headers["x-ignored-fields"] == "thinking.budget_tokens"
    with calling(start, scripted, "deepseek_r1", "so</think>\n\nHi") as r1:
        reply = post(r1, output_config={"effort": "low"}, **budget)
        ignored = reply.headers["x-ignored-fields"]
        assert ignored == "output_config.effort, thinking.budget_tokens"
        assert "x-ignored-fields" not in post(r1).headers


def test_an_answer_is_continued(live):
    messages = [*QUESTION, {"role": "assistant", "content": "It"}]
    message = post(live, messages=messages).json()
    assert prompt(live).endswith("<｜Assistant｜><think></think>It")
    # the prompt opens no thought, so there is no empty block for one
    assert all(block["type"] != "thinking" for block in message["content"])
    got = events(post(live, messages=messages, stream=True))
    assert got[1]["content_block"]["type"] == "text"


def test_system_texts(live):
    system = [{"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}},
              {"type": "text", "text": "B"}]  # fmt: skip
    inside = [*QUESTION, {"role": "system", "content": "C"}]
    assert post(live, system=system, messages=inside, thinking=OFF).status_code == 200
    assert prompt(live) == (
        "<｜begin▁of▁sentence｜>A\n\nB<｜User｜>Weather?\n\n<system-reminder>\nC\n</system-reminder>"
        "<｜Assistant｜></think>"
    )


@pytest.mark.parametrize("path", PATHS)
def test_tokens_are_counted_as_they_would_be_sent(live, path):
    fields = {"system": "S", "tools": TOOLS, "messages": QUESTION}
    counted = live.client.post(f"{path}/count_tokens", json=fields).json()
    post(live, **fields)
    assert counted == {"input_tokens": len(live.engine.seen[-1].prompt)}
    refused = live.client.post(f"{path}/count_tokens", json={"messages": []})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages")


BAD = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user", "content": []}]}, "messages.0"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
     "messages.0.content.0.type"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"stop_sequences": [""]}, "stop_sequences"),
    ({"stop_sequences": ["a"] * 17}, "stop_sequences"),
    ({"thinking": {}}, "thinking.type"),
    ({"output_config": {"effort": "PLANTED"}}, "output_config.effort"),
    ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
    ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "PLANTED"}}}},
     "output_config.format.schema"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
    ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
    ({"tools": [{"name": "f", "input_schema": {"type": "string"}}]}, "tools[0].input_schema"),
    ({"tools": [{"name": "a b", "input_schema": SCHEMA}]}, "tools[0].name"),
    ({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "PLANTED"}}, "tool_choice"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"service_tier": "priority"}, "service_tier"),
    ({"metadata": {"user_id": 5}}, "metadata.user_id"),
    ({"n": 2}, "n"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), BAD, ids=lambda value: str(value)[:50])
def test_a_bad_field_is_refused_by_name(live, fields, param):
    reply = post(live, **fields)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert "PLANTED" not in reply.text


def test_names_of_other_models(live):
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        body = {"messages": QUESTION, "model": "other"}
        assert live.client.post(path, json=body).status_code == 404
    for name in ("test-model", "ingle", "deepseek-flash", "claude-opus-4-8", "claude-haiku"):
        reply = post(live, model=name)
        assert (reply.status_code, reply.json()["model"]) == (200, "test-model")
