"""Bad requests: a typed refusal that names the field, leaks nothing and harms nobody else."""

from __future__ import annotations

import json
import re

import pytest

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "PLANTED-SECRET"}]
TOOL = {"type": "function", "function": {"name": "f"}}

BAD_FIELDS = [
    ({"messages": []}, "messages"),
    ({"messages": MESSAGES * 5000}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages[0]"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "x", "name": 5}]}, "messages[0].name"),
    ({"messages": [{"role": "user", "content": "x", "odd": "n"}]}, "messages[0].odd"),
    ({"messages": [{"role": "user", "content": "x", "prefix": True}]}, "messages[0].prefix"),
    ({"messages": [*MESSAGES, {"role": "assistant", "content": "x"}]}, "messages[1]"),
    ({"messages": [{"role": "assistant", "tool_calls": [1]}]}, "messages[0].tool_calls[0]"),
    ({"messages": [*MESSAGES, {"role": "assistant", "content": None}]}, "messages[1].content"),
    ({"messages": [*MESSAGES, {"role": "assistant", "refusal": "no"}]}, "messages[1].refusal"),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": "http://x"}]}
            ]
        },
        "messages[0].content",
    ),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": "9"}, "max_tokens"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.0001}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"repetition_penalty": 1e-300}, "repetition_penalty"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**64}, "seed"),
    ({"logit_bias": {str(i): 1 for i in range(301)}}, "logit_bias"),
    ({"logit_bias": {"0": 1e308}}, "logit_bias"),
    ({"logit_bias": {"999999": 1}}, "logit_bias"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"stop": ""}, "stop"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": "x" * 2000}, "stop"),
    ({"stop_token_ids": [-1]}, "stop_token_ids"),
    ({"top_logprobs": 5}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"n": 0}, "n"),
    ({"n": 9}, "n"),
    ({"n": 10**9}, "n"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "mcp"}]}, "tools[0].type"),
    ({"tools": [TOOL, TOOL]}, "tools"),
    ({"tools": [{"function": {"name": "a b"}}]}, "tools[0].function.name"),
    (
        {"tools": [{"function": {"name": "f", "parameters": {"type": "array"}}}]},
        "tools[0].function.parameters",
    ),
    ({"tools": [TOOL] * 600}, "tools"),
    ({"tools": [TOOL]}, "tools"),  # the vocabulary of this model has no tokens for calls
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"response_format": {"type": "PLANTED-SECRET"}}, "response_format.type"),
    ({"response_format": {"type": "regex"}}, "response_format.regex"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
    ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
    ({"reasoning_effort": "PLANTED-SECRET"}, "reasoning_effort"),
    ({"reasoning_effort": 50}, "reasoning_effort"),
    ({"thinking": {"type": "PLANTED-SECRET"}}, "thinking.type"),
    ({"thinking": {}}, "thinking.type"),
    ({"user": 5}, "user"),
    ({"user": "u" * 600}, "user"),
    ({"cache_salt": ["s"]}, "cache_salt"),
    ({"priority": 10**6}, "priority"),
    ({"store": True}, "store"),
    ({"metadata": {"a": "b"}}, "metadata"),
    ({"service_tier": "flex"}, "service_tier"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"prompt_embeds": "gASVAAAA"}, "prompt_embeds"),
    ({"chat_template": "{{ 1 }}"}, "chat_template"),
]

BAD_BODIES = [
    b"",
    b"{",
    b"null",
    b"[1]",
    b'{"messages":[{"role":"user","content":"PLANTED-SECRET',
    b'{"messages":[{"role":"user","content":"\\ud800"}]}',
    b'{"messages":[{"role":"user","content":"\xff"}]}',
    b'\xef\xbb\xbf{"messages":[{"role":"user","content":"x"}]}',
    b'{"messages":[{"role":"user","content":"x"}],"temperature":NaN}',
    b'{"messages":[{"role":"user","content":"x"}],"temperature":Infinity}',
    b'{"messages":[{"role":"user","content":"x"}],"temperature":1e999}',
    b"[" * 100_000,
    b'{"messages":' * 50_000,
    b'{"messages":[{"role":"user","content":"x"}],"tools":'
    + b"[" * 100_000
    + b"]" * 100_000
    + b"}",
    b'{"PLANTED-SECRET is not a field name":1}',
]


def check_error(reply, status: int) -> dict:
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    leak = r"0x[0-9a-f]{6,}|/root|/home|/work|/tmp|\.py|Traceback|PLANTED"
    assert not re.search(leak, reply.text), reply.text
    return error


@pytest.mark.parametrize(("fields", "param"), BAD_FIELDS, ids=lambda value: str(value)[:40])
def test_bad_field_is_refused_by_name(live, fields, param):
    reply = live.client.post(CHAT, json={"messages": MESSAGES} | fields)
    assert check_error(reply, 400)["param"] == param


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: repr(body[:30]))
def test_bad_body_is_refused(live, body):
    reply = live.client.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    check_error(reply, 400)


def test_after_all_that_the_next_answer_is_unchanged(live):
    assert live.chat().json()["choices"][0]["message"]["content"] == "132 é"
    assert live.engine.open == {}
    assert live.service.open_requests == 0


NEUTRAL_FIELDS = [
    {"n": 1},
    {"tools": []},
    {"tools": None},
    {"tool_choice": "auto"},
    {"response_format": {"type": "text"}},
    {"reasoning_effort": "none"},
    {"store": False, "metadata": {}, "functions": [], "modalities": ["text"]},
    {"service_tier": "auto", "verbosity": "medium", "audio": None},
]


@pytest.mark.parametrize("fields", NEUTRAL_FIELDS, ids=str)
def test_fields_that_ask_for_nothing_are_accepted(live, fields):
    assert live.chat(**fields).status_code == 200


def test_more_tokens_than_the_context_is_refused_with_the_counts(live):
    for limit in (10**9, 2**70):
        error = check_error(live.chat(max_tokens=limit), 400)
        assert error["code"] == "context_length_exceeded"
        assert "512" in error["message"] and str(limit) in error["message"]


def test_prompt_longer_than_the_context_is_refused(live):
    reply = live.chat(messages=[{"role": "user", "content": "z" * 600}])
    assert check_error(reply, 400)["code"] == "context_length_exceeded"


def test_unknown_model_is_404(live):
    for name in ("gpt-4", "../../etc/passwd", "PLANTED"):
        assert check_error(live.chat(model=name), 404)["code"] == "model_not_found"


def test_huge_body_is_413(live):
    body = json.dumps({"messages": [{"role": "user", "content": "x" * (5 << 20)}]})
    headers = {"Content-Type": "application/json"}
    assert check_error(live.client.post(CHAT, content=body, headers=headers), 413)


def test_huge_chunked_body_is_413(live):
    def chunks():
        for _ in range(80):
            yield b"x" * (1 << 16)

    reply = live.client.post(CHAT, content=chunks(), headers={"Content-Type": "application/json"})
    check_error(reply, 413)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
    ids=str,
)
def test_other_media_types_are_415(live, headers):
    check_error(live.client.post(CHAT, content=b"{}", headers=headers), 415)


def test_content_type_parameters_are_fine(live):
    headers = {"Content-Type": "Application/JSON; charset=UTF-8"}
    body = json.dumps({"messages": MESSAGES})
    assert live.client.post(CHAT, content=body, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/nope", "/v1", "/v1/chat/completions/", "/static/../app.py",
                                  "/static/%2e%2e/app.py", "/docs", "//v1/models"])  # fmt: skip
def test_unknown_routes_share_the_envelope(live, path):
    assert check_error(live.client.get(f"{live.url}{path}"), 404)["code"] == "not_found"


def test_wrong_method_shares_the_envelope(live):
    reply = live.client.get(CHAT)
    assert check_error(reply, 405)["code"] == "method_not_allowed"
    assert reply.headers["allow"] == "POST"
    check_error(live.client.delete("/v1/models"), 405)
