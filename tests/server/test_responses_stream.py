"""Events of the Responses API beside those of DeepSeek's own library, field by field."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from ingle.prompt.deepseek_v41 import DeepSeekV41
from tests.prompt.vocabulary import V41, byte_tokenizer

recipe = pytest.importorskip("deepseek_recipe")

CALL = (
    '<｜DSML｜ invoke name="get">\n<｜DSML｜ parameter name="a" string="true">p"é\n'
    "</｜DSML｜ parameter>\n"
    '<｜DSML｜ parameter name="b" string="false">[1, 2]</｜DSML｜ parameter>\n'
    "</｜DSML｜ invoke>\n"
)
CALLS = f"\n\n<｜DSML｜ calls>\n{CALL}{CALL}</｜DSML｜ calls>"
PROPERTIES = {"a": {"type": "string"}, "b": {"type": "array"}}
TOOLS = [
    {
        "type": "function",
        "name": "get",
        "description": "x",
        "parameters": {"type": "object", "properties": PROPERTIES},
    }
]
OFF = {"reasoning": {"effort": "none"}}
ASKED = {
    "instructions": "Be brief.",
    "temperature": 0.25,
    "top_p": 0.5,
    "user": "someone",
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "reasoning": {"effort": "low", "summary": "auto"},
}
JSON = {"type": "json_schema", "name": "n", "schema": {"type": "object", "properties": PROPERTIES}}

# what was asked for beside the question, the thought (None: thinking is off), what follows it, and
# after how many tokens it is cut
REPLIES: dict[str, tuple[dict[str, Any], str | None, str, int | None]] = {
    "thought and answer": ({}, "I think.\nSo.\n", "Hello 你好", None),
    "answer only": (OFF, None, "Hello", None),
    "nothing": (OFF, None, "", None),
    "empty thought": ({}, "", "Hello", None),
    "thought only": ({}, "Hm", "", None),
    "all three": ({"tools": TOOLS}, "I think.", "Let me see." + CALLS, None),
    "thought and calls": ({"tools": TOOLS}, "I think.", CALLS, None),
    "answer and calls": ({"tools": TOOLS} | OFF, None, "One." + CALLS, None),
    "calls only": ({"tools": TOOLS} | OFF, None, CALLS, None),
    "text behind calls": ({"tools": TOOLS} | OFF, None, CALLS + "\n\ntail", None),
    "tools not used": ({"tools": TOOLS, "tool_choice": "auto"}, "Hm", "No.", None),
    "tools not allowed": ({"tools": TOOLS, "tool_choice": "none"}, "Hm", "No.", None),
    "cut in the thought": ({}, "I think.", "Hello", 4),
    "cut in the answer": ({}, "I think.", "Hello", 14),
    "cut in a call": ({"tools": TOOLS}, "I think.", "One." + CALLS, 85),
    "settings": (ASKED, "Hm", "Hello", None),
    "schema": ({"text": {"format": JSON}} | OFF, None, '{"a": "x"}', None),
}


@pytest.fixture(scope="module")
def v41(start, scripted):
    with start(scripted(byte_tokenizer(V41), context=1 << 16), encoder=DeepSeekV41()) as running:
        yield running


def events_of(text: str) -> list[dict[str, Any]]:
    events = []
    for frame in text.strip().split("\n\n"):
        if frame.startswith(":"):  # keeps the connection alive
            continue
        name, data = frame.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def their_events(body: dict[str, Any], text: str, usage: dict[str, Any], cut: bool):
    request = recipe.ResponsesRequest(json.dumps({**body, "model": "DeepSeek-V4.1-Flash"}))
    echo = request.echo()
    converted = request.convert(recipe.ConversionOptions())
    generator = recipe.ResponsesRequest.chunk_generator(converted, "ID", "test-model")
    stream = recipe.StreamProcessor(generator.with_echo(echo), converted.parsing_options)
    cached = usage["input_tokens_details"]["cached_tokens"]
    prompt = recipe.PromptUsage(prompt_tokens=usage["input_tokens"], prompt_cache_hit_tokens=cached)
    reason = recipe.InferenceFinishReason.Length if cut else recipe.InferenceFinishReason.Stop
    chunks = stream.push(recipe.InferenceChunk.ready(prompt_usage=prompt))
    chunks += stream.push(recipe.InferenceChunk.text(text, usage["output_tokens"]))
    chunks += stream.push(recipe.InferenceChunk.finish(reason)) + stream.finish()
    whole = recipe.ResponsesResponse("ID", "test-model", 0, usage["input_tokens"], cached)
    events = [json.loads(chunk.to_json()) for chunk in chunks]
    for chunk in chunks:
        whole.accumulate(chunk)
    return events, json.loads(whole.to_json())


def masked(value: Any, id_: str) -> Any:
    """Without what is drawn by lot, told by the clock or counted in tokens of thoughts."""
    text = json.dumps(value, ensure_ascii=False).replace(id_, "ID")
    text = re.sub(r"(call_\d\d_)[0-9A-Za-z]+", r"\1", text)
    text = re.sub(r'("(created_at|completed_at|reasoning_tokens)": )\d+', r"\1 1", text)
    return json.loads(text)


def joined(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring deltas as one, and all numbered anew."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    merged: list[dict[str, Any]] = []
    for event in events:
        same = merged and event["type"].endswith(".delta") and merged[-1]["type"] == event["type"]
        if same and merged[-1]["item_id"] == event["item_id"]:
            merged[-1]["delta"] += event["delta"]
        else:
            merged.append(event)
    return [event | {"sequence_number": number} for number, event in enumerate(merged)]


@pytest.mark.parametrize("name", REPLIES)
def test_replies_are_those_of_the_library(v41, name):
    asked, v41.engine.reasoning, v41.engine.content, cut = REPLIES[name]
    body = {"input": "hi", "store": False, "temperature": 1.0, "stream": True, **asked}
    if cut:
        body["max_output_tokens"] = cut
    ours = events_of(v41.client.post("/v1/responses", json=body).text)
    last = ours[-1]["response"]
    ids = v41.engine.reply_ids()
    if not cut:
        ids.pop()  # the end of the reply is no text
    text = v41.engine.tokenizer.decode(ids[:cut], skip_special=False)
    theirs, whole = their_events(body, text, last["usage"], bool(cut))
    expected = joined(masked(theirs, "ID"))
    if name == "thought and calls":  # nothing is left out of the comparison
        assert len(expected) == 17
    assert joined(masked(ours, last["id"])) == expected
    reply = v41.client.post("/v1/responses", json=body | {"stream": False}).json()
    assert masked(reply, reply["id"]) == masked(whole, "ID") == masked(last, last["id"])


def test_output_tokens_and_thoughts_are_counted(v41):
    v41.engine.reasoning, v41.engine.content = "abc", "hello"
    usage = v41.client.post("/responses", json={"input": "hi"}).json()["usage"]
    assert usage["output_tokens"] == len(v41.engine.reply_ids()) == 12
    assert usage["output_tokens_details"] == {"reasoning_tokens": 4}  # with </think>
    assert usage["input_tokens"] == len(v41.engine.seen[-1].prompt)
    assert usage["input_tokens_details"] == {"cached_tokens": 3}


def test_logprobs_come_with_the_text_they_belong_to(v41):
    v41.engine.reasoning, v41.engine.content = "abc", "hé"
    body = {"input": "hi", "top_logprobs": 2, "include": ["message.output_text.logprobs"]}
    reply = v41.client.post("/v1/responses", json=body).json()
    part = reply["output"][1]["content"][0]
    # the newlines between thought and answer were generated, too
    assert bytes(b for token in part["logprobs"] for b in token["bytes"]).decode() == "\n\nhé"
    assert part["logprobs"][0]["logprob"] == -0.5
    assert part["logprobs"][0]["top_logprobs"][1]["logprob"] == -9999.0
    assert len(part["logprobs"][0]["top_logprobs"]) == 2
    events = events_of(v41.client.post("/v1/responses", json=body | {"stream": True}).text)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [token for delta in deltas for token in delta["logprobs"]] == part["logprobs"]
    done = next(event for event in events if event["type"] == "response.output_text.done")
    assert done["logprobs"] == part["logprobs"]
    chosen = v41.client.post(
        "/v1/responses", json={"input": "hi", "include": ["message.output_text.logprobs"]}
    ).json()
    scored = chosen["output"][1]["content"][0]["logprobs"]
    assert [token["top_logprobs"] for token in scored] == [[]] * len(part["logprobs"])


def test_logprobs_of_newlines_before_a_call_open_no_answer(v41):
    v41.engine.reasoning, v41.engine.content = "abc", CALLS
    body = {"input": "hi", "top_logprobs": 0, "tools": TOOLS}
    reply = v41.client.post("/v1/responses", json=body).json()
    kinds = [item["type"] for item in reply["output"]]
    assert kinds == ["reasoning", "function_call", "function_call"]


def test_an_engine_that_fails_ends_the_stream_with_response_failed(start, scripted):
    engine = scripted(byte_tokenizer(V41), context=1 << 16, rejects=True)
    with start(engine, encoder=DeepSeekV41()) as live:
        text = live.client.post("/v1/responses", json={"input": "hi", "stream": True}).text
        events = events_of(text)
        assert [event["type"] for event in events] == [
            "response.created",
            "response.in_progress",
            "response.failed",
        ]
        failed = events[-1]["response"]
        assert failed["status"] == "failed" and failed["completed_at"] is None
        assert failed["error"] == {"code": "server_error", "message": "No finite number."}
        kept = live.client.get(f"/v1/responses/{failed['id']}").json()
        assert kept == failed
        reply = live.client.post("/v1/responses", json={"input": "hi"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (500, "generation_failed")
