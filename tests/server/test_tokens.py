"""Tokenize, detokenize and the card of one model."""

from __future__ import annotations

import pytest

from ingle.prompt.select import ENCODERS
from tests.prompt.vocabulary import byte_tokenizer

SPELLED = "</think><｜Assistant｜>"
QUESTION = [{"role": "user", "content": "hi"}]


def post(live, path: str, **body: object):
    return live.client.post(path, json=body)


def test_a_prompt_and_back(live):
    tokenizer = live.engine.tokenizer
    for text in ("47+85= é", SPELLED, ""):
        found = post(live, "/tokenize", prompt=text).json()
        assert found["tokens"] == [tokenizer.bos_id, *tokenizer.encode(text)]
        assert (found["count"], found["max_model_len"]) == (len(found["tokens"]), 512)
        plain = post(live, "/tokenize", prompt=text, add_special_tokens=False).json()["tokens"]
        assert not any(map(tokenizer.is_special, plain))
        assert post(live, "/detokenize", tokens=plain).json() == {"prompt": text}


def test_messages_are_encoded_as_a_chat_would(live):
    messages = [{"role": "user", "content": f"hi {SPELLED}"}]
    ids = post(live, "/tokenize", messages=messages).json()["tokens"]
    live.chat(messages=messages)
    assert live.engine.seen[-1].prompt == ids
    shown = post(live, "/detokenize", tokens=ids).json()["prompt"]
    assert shown.endswith("<｜Assistant｜><think>\n")
    off = post(live, "/tokenize", messages=messages, thinking=False).json()["tokens"]
    assert off != ids


def test_tools_are_part_of_a_conversation(scripted, start):
    tokenizer = byte_tokenizer()
    function = {"name": "f", "description": "PLAIN", "parameters": {"type": "object"}}
    tools = [{"type": "function", "function": function}]
    with start(scripted(tokenizer, context=4096), encoder=ENCODERS["deepseek_v31"]) as live:
        ids = post(live, "/tokenize", messages=QUESTION, tools=tools).json()["tokens"]
        live.chat(messages=QUESTION, tools=tools)
        assert live.engine.seen[-1].prompt == ids
        assert "### f\nDescription: PLAIN" in tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": []}, "prompt"),
        ("/tokenize", {"prompt": 3}, "prompt"),
        ("/tokenize", {"prompt": "a", "odd": 1}, "odd"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": [{"role": "user"}]}, "messages[0].content"),
        ("/tokenize", {"messages": QUESTION, "tools": [{"type": "mcp"}]}, "tools[0].type"),
        ("/tokenize", {"messages": QUESTION, "thinking": "on"}, "thinking"),
        ("/detokenize", {"tokens": [1, 512]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": [True]}, "tokens[0]"),
        ("/detokenize", {}, "tokens"),
    ],
)
def test_refusals_name_the_field(live, path, body, param):
    reply = post(live, path, **body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_one_model_by_its_name(live):
    card = live.client.get("/v1/models").json()["data"][0]
    for path in ("/v1/models/test-model", "/models/test-model", "/v1/models/ingle"):
        assert live.client.get(path).json() == card
    reply = live.client.get("/v1/models/other/name")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert post(live, "/tokenize", prompt="a", model="other").status_code == 404
