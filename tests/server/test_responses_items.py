"""Requests of the Responses API become the conversations that DeepSeek's own library makes."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from ingle.errors import InvalidRequestError
from ingle.server.responses_items import named, read_item
from ingle.server.responses_types import as_turn, decode_responses

recipe = pytest.importorskip("deepseek_recipe")

CASES = 700
TEXTS = ("", "a", "x\ny", "\n\n", "json", "</think>é", "<｜User｜>", " ")
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}, "é": {"type": "integer"}}}


def nothing_kept(id_: str) -> None:
    return None


def our_turn(body: dict[str, Any]):
    asked = decode_responses(json.dumps(body).encode())
    items = [read_item(v, f"input[{i}]", nothing_kept) for i, v in enumerate(asked.items)]
    return as_turn(asked, items), items


class Requests:
    """Random bodies of what both read: most conversations fit, some have calls left open."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.calls = 0

    def body(self) -> dict[str, Any]:
        pick = self.random.choice
        body: dict[str, Any] = {"input": self.conversation()}
        if pick((True, False)):
            body["tools"] = self.tools()
            body["tool_choice"] = pick(("auto", "none", "auto", "required"))
        if pick((True, False)):
            body["instructions"] = pick(TEXTS)
        effort = pick((None, "none", "none", "minimal", "low", "medium", "high", "max", "ultra"))
        if effort:
            body["reasoning"] = {"effort": effort}
        kinds = [None, {"type": "text"}, {"type": "json_object"}]
        kinds.append({"type": "json_schema", "name": "n", "schema": SCHEMA})
        wanted = pick((*kinds, None, None))
        if wanted and ("tools" not in body or body["tool_choice"] == "none"):
            body["text"] = {"format": wanted}
        return body

    def tools(self) -> list[dict[str, Any]]:
        tools = [{"type": "function", "name": "get", "parameters": SCHEMA}]
        if self.random.random() < 0.3:  # the library takes either strict tools or others
            return [{**tools[0], "strict": True}]
        if self.random.random() < 0.5:
            tool = {"type": "function", "name": "b-_9", "description": self.random.choice(TEXTS)}
            tools.append(tool)
        return tools

    def conversation(self) -> str | list[dict[str, Any]]:
        if self.random.random() < 0.1:
            return self.random.choice(TEXTS)
        items: list[dict[str, Any]] = []
        for _ in range(self.random.randrange(1, 6)):
            items += self.random.choice((self.said, self.thought, self.answer, self.loop))()
        return [*items, *self.said()]

    def content(self, kind: str) -> str | list[dict[str, Any]]:
        if self.random.random() < 0.5:
            return self.random.choice(TEXTS)
        count = self.random.randrange(0, 4)
        return [{"type": kind, "text": self.random.choice(TEXTS)} for _ in range(count)]

    def said(self) -> list[dict[str, Any]]:
        role = self.random.choice(("user", "user", "system", "developer"))
        message = {"role": role, "content": self.content("input_text")}
        return [message if self.random.random() < 0.5 else {"type": "message", **message}]

    def answer(self) -> list[dict[str, Any]]:
        item = {"role": "assistant", "content": self.content("output_text")}
        extra = {"type": "message", "id": "m", "status": "completed", "phase": "final_answer"}
        return [item if self.random.random() < 0.5 else {**extra, **item}]

    def thought(self) -> list[dict[str, Any]]:
        item: dict[str, Any] = {"type": "reasoning", "summary": []}
        if self.random.random() < 0.8:
            texts = [self.random.choice(TEXTS) for _ in range(self.random.randrange(0, 3))]
            item["content"] = [{"type": "reasoning_text", "text": text} for text in texts]
        return [item]

    def loop(self) -> list[dict[str, Any]]:
        """Calls and their results; in one of ten something is missing or twice there."""
        ids = []
        for _ in range(self.random.randrange(1, 4)):
            self.calls += 1
            ids.append(f"c{self.calls:04d}")  # the library sorts calls by their ids
        call = {"type": "function_call", "name": "get"}
        calls = [call | {"call_id": id_, "arguments": self.arguments()} for id_ in ids]
        result = {"type": "function_call_output"}
        results = [result | {"call_id": id_, "output": self.content("input_text")} for id_ in ids]
        self.random.shuffle(results)
        odds = self.random.random()
        if odds < 0.03:
            results.pop()
        elif odds < 0.06:
            results.append(results[0])
        elif odds < 0.08:
            calls.append(calls[0])
        elif odds < 0.1:
            results[1:1] = self.answer()
        return calls + results

    def arguments(self) -> str:
        return self.random.choice(("{}", '{"a": "é"}', '{"a":1}', '{"a":'))


def theirs(body: dict[str, Any]):
    request = recipe.ResponsesRequest(json.dumps({"model": "DeepSeek-V4.1-Flash", **body}))
    return request.convert(recipe.ConversionOptions()).conversation


def plain(conversation) -> list[tuple]:
    return [
        (
            message.role,
            message.content,
            message.reasoning_content,
            [(call.id, call.name, call.arguments) for call in message.tool_calls or ()],
            message.tool_call_id,
        )
        for message in conversation.messages
    ]


def our_plain(messages: list[dict[str, Any]], thinking: bool) -> list[tuple]:
    """Without thinking the library drops thoughts here, ours where the prompt is written."""
    return [
        (
            message["role"],
            message["content"],
            message.get("reasoning_content") if thinking else None,
            [
                (call["id"], call["function"]["name"], call["function"]["arguments"])
                for call in message.get("tool_calls", ())
            ],
            message.get("tool_call_id"),
        )
        for message in messages
    ]


def test_conversations_are_those_of_the_library():
    refused = compared = with_calls = 0
    requests = Requests(20261125)
    for _ in range(CASES):
        body = requests.body()
        try:
            expected = theirs(body)
        except recipe.ConversionError as error:
            with pytest.raises(InvalidRequestError) as ours:
                our_turn(body)
            wanted = json.loads(error.body)["error"]["message"]
            assert str(ours.value)[:15] == wanted[:15], (wanted, body)
            refused += 1
            continue
        turn, _ = our_turn(body)
        thinking = expected.thinking_mode
        assert our_plain(turn.messages, thinking) == plain(expected), body
        assert turn.thinking == thinking
        listed = [(t["function"]["name"], t["function"].get("description")) for t in turn.tools]
        assert listed == [(tool.name, tool.description) for tool in expected.tools]
        schemas = [tool["function"].get("parameters", {}) for tool in turn.tools]
        assert schemas == [tool.parameters for tool in expected.tools]
        assert turn.tool_choice.mode == expected.tool_choice
        assert (turn.output.kind if turn.output else "text") == expected.response_format
        assert (turn.output.source if turn.output else None) == expected.response_schema
        compared += 1
        with_calls += any(message.get("tool_calls") for message in turn.messages)
    assert compared >= 500 and refused >= 50 and with_calls >= 150, (compared, refused, with_calls)


def test_calls_keep_the_order_in_which_they_were_made():
    calls = [{**CALL, "call_id": id_} for id_ in "ba"]
    results = [{**RESULT, "call_id": id_, "output": id_} for id_ in "ab"]
    turn, _ = our_turn({"input": [USER, *calls, *results]})
    assert [call["id"] for call in turn.messages[1]["tool_calls"]] == ["b", "a"]
    assert [message["content"] for message in turn.messages[2:]] == ["b", "a"]
    by_name = theirs({"input": [USER, *calls, *results]}).messages[1].tool_calls
    assert [call.id for call in by_name] == ["a", "b"]  # the difference


def test_kept_items_read_back_as_the_same_conversation():
    requests = Requests(7)
    for _ in range(200):
        body = requests.body()
        try:
            turn, items = our_turn(body)
        except InvalidRequestError:
            continue
        kept = json.loads(json.dumps(named(items, "resp_0")))
        assert len({item["id"] for item in kept}) == len(kept)
        again, _ = our_turn({**body, "input": kept})
        assert again.messages == turn.messages


@pytest.mark.parametrize("kind", ["input_text", "output_text", "text"])
def test_all_spellings_of_text_are_read(kind):
    parts = [{"type": kind, "text": "a"}, {"type": kind, "text": "b", "annotations": []}]
    turn, _ = our_turn({"input": [{"role": "user", "content": parts}]})
    assert turn.messages == [{"role": "user", "content": "a\n\nb"}]


USER = {"role": "user", "content": "hi"}
CALL = {"type": "function_call", "call_id": "c", "name": "get", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "r"}
IMAGE = {"type": "input_image", "image_url": "http://example.com/x.png"}


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([USER, {"type": "web_search_call", "id": "x"}], "input[1].type"),
        ([USER, {"type": 5}], "input[1].type"),
        ([{"role": "tool", "content": "x"}], "input[0].role"),
        ([{"role": "user"}], "input[0].content"),
        ([{"role": "user", "content": None}], "input[0].content"),
        ([{"role": "user", "content": "x", "bogus": 1}], "input[0].bogus"),
        ([{"role": "user", "content": [IMAGE]}], "input[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "text", "x": 1}]}], "input[0].content[0].x"),
        ([USER, {**CALL, "arguments": {}}, RESULT], "input[1].arguments"),
        ([USER, CALL, {**RESULT, "output": [IMAGE]}], "input[2].output[0].type"),
        ([USER, CALL], "input"),
        ([USER, CALL, USER], "input[2]"),
        ([USER, RESULT], "input[1].call_id"),
        ([USER, CALL, RESULT, RESULT], "input[3].call_id"),
        ([USER, CALL, RESULT, CALL, RESULT], "input[3].call_id"),
        ([USER, {"role": "assistant", "content": "x"}], "input"),
        ([{"type": "item_reference", "id": "msg_x"}], "input[0].id"),
        ([{"id": "msg_x"}], "input[0].id"),
        ([{"type": "reasoning", "encrypted_content": "gAAA"}, USER], "input[0].encrypted_content"),
        (
            [{"type": "reasoning", "content": [{"type": "x", "text": ""}]}],
            "input[0].content[0].type",
        ),
        ([5], "input[0]"),
        ([], "input"),
        (5, "input"),
        (None, "input"),
    ],
)
def test_items_are_refused_by_name(items, param):
    with pytest.raises(InvalidRequestError) as error:
        our_turn({"input": items})
    assert error.value.param == param
    assert "example.com" not in str(error.value) and "gAAA" not in str(error.value)


def test_a_conversation_of_too_many_items_is_refused():
    with pytest.raises(InvalidRequestError, match="4096 items"):
        our_turn({"input": [USER] * 4097})
