"""The Responses API as clients use it: answered, kept, continued, cancelled, refused."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from hashlib import sha256
from typing import Any

import openai
import pydantic
import pytest

from ingle.prompt.deepseek_v41 import DeepSeekV41
from ingle.server.guard import Access
from ingle.server.responses_store import Kept, ResponseStore
from tests.prompt.vocabulary import V41, byte_tokenizer

THOUGHT, ANSWER = "I think.", "Hello é"
CALL = (
    '\n\n<｜DSML｜ calls>\n<｜DSML｜ invoke name="get">\n'
    '<｜DSML｜ parameter name="a" string="true">x</｜DSML｜ parameter>\n'
    "</｜DSML｜ invoke>\n</｜DSML｜ calls>"
)
TOOLS = [
    {
        "type": "function",
        "name": "get",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    }
]
UNKNOWN = "resp_" + "0" * 32
KEYS = ("one-key-of-sixteen", "two-key-of-sixteen")


@pytest.fixture(scope="module")
def served(start, scripted):
    with start(scripted(byte_tokenizer(V41), context=1 << 16), encoder=DeepSeekV41()) as running:
        yield running


@pytest.fixture
def v41(served):
    """The server with its usual reply."""
    served.engine.reasoning, served.engine.content = THOUGHT, ANSWER
    served.engine.step_seconds, served.engine.rejects = 0.0, False
    return served


@pytest.fixture
def client(v41) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{v41.url}/v1", api_key="none", max_retries=0)


def ask(live, **body: Any) -> dict[str, Any]:
    reply = live.client.post("/v1/responses", json={"input": "hi", **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def prompt_of(live) -> str:
    engine = live.engine
    return engine.tokenizer.decode(engine.seen[-1].prompt, skip_special=False)


# --- OpenAI's client ---


def test_openai_client_creates_and_finds_a_response(client):
    reply = client.responses.create(model="ingle", input="hi", metadata={"a": "b"})
    assert reply.output_text == ANSWER
    assert [item.type for item in reply.output] == ["reasoning", "message"]
    assert reply.output[0].content[0].text == THOUGHT
    assert (reply.status, reply.metadata, reply.error) == ("completed", {"a": "b"}, None)
    assert reply.usage.output_tokens_details.reasoning_tokens == len(THOUGHT) + 1
    assert client.responses.retrieve(reply.id) == reply
    client.responses.delete(reply.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(reply.id)


def test_openai_client_accumulates_a_stream(v41, client):
    v41.engine.content = "One." + CALL
    with client.responses.stream(model="ingle", input="hi", tools=TOOLS) as stream:
        events = list(stream)
        final = stream.get_final_response()
    snapshots = [e.snapshot for e in events if e.type == "response.output_text.delta"]
    assert snapshots[-1] == "One."
    call = final.output[-1]
    assert (call.name, call.arguments, call.parsed_arguments) == ("get", '{"a": "x"}', None)
    assert call.call_id.startswith("call_00_")
    assert client.responses.retrieve(final.id).output[-1].arguments == '{"a": "x"}'
    plain = client.responses.create(model="ingle", input="hi", tools=TOOLS, stream=True)
    types = [event.type for event in plain]
    assert types[:2] == ["response.created", "response.in_progress"]
    assert types[-1] == "response.completed"


def test_openai_client_parses_structured_output(v41, client):
    class City(pydantic.BaseModel):
        name: str

    v41.engine.content = '{"name": "Köln"}'
    reply = client.responses.parse(model="ingle", input="hi", text_format=City)
    assert reply.output_parsed == City(name="Köln")
    assert v41.engine.seen[-1].params.grammar is not None
    with client.responses.stream(model="ingle", input="hi", text_format=City) as stream:
        assert stream.get_final_response().output_parsed == City(name="Köln")


def test_openai_client_runs_a_tool_loop_with_items_of_its_own(v41, client):
    v41.engine.content = CALL
    history: list[Any] = [{"role": "user", "content": "hi"}]
    first = client.responses.create(model="ingle", input=history, tools=TOOLS, store=False)
    history += first.output
    result = {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "42"}
    v41.engine.content = ANSWER
    second = client.responses.create(
        model="ingle", input=[*history, result], tools=TOOLS, store=False
    )
    assert second.output_text == ANSWER
    prompt = prompt_of(v41)
    assert f"<think>{THOUGHT}</think>" in prompt
    assert prompt.endswith("<｜User｜><tool_result>42</tool_result><｜Assistant｜><think>")


def test_openai_client_lists_input_items(client):
    texts = [f"text {number}" for number in range(5)]
    items = [{"role": "user", "content": text} for text in texts]
    reply = client.responses.create(model="ingle", input=items)
    listed = [item.content[0].text for item in client.responses.input_items.list(reply.id)]
    assert listed == texts[::-1]
    pages = client.responses.input_items.list(reply.id, order="asc", limit=2)
    assert (len(pages.data), pages.has_more) == (2, True)
    assert [item.content[0].text for item in pages] == texts  # page after page
    assert len({item.id for item in pages}) == 5


def test_openai_async_client(v41):
    async def use() -> None:
        async with openai.AsyncOpenAI(
            base_url=f"{v41.url}/v1", api_key="none", max_retries=0
        ) as client:
            reply = await client.responses.create(model="ingle", input="hi")
            assert reply.output_text == ANSWER
            async with client.responses.stream(model="ingle", input="hi") as stream:
                final = await stream.get_final_response()
            assert final.output_text == ANSWER
            assert (await client.responses.retrieve(final.id)).id == final.id
            items = [item async for item in client.responses.input_items.list(final.id)]
            assert [item.content[0].text for item in items] == ["hi"]
            slow = await client.responses.create(model="ingle", input="hi", background=True)
            assert (await client.responses.cancel(slow.id)).status in ("cancelled", "completed")
            await client.responses.delete(final.id)
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(final.id)

    asyncio.run(use())


# --- conversations that are kept ---


def test_a_conversation_goes_on_from_a_kept_response(v41):
    first = ask(v41, input="one", instructions="Be brief.")
    second = ask(v41, input="two", previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    third = ask(v41, input="three", previous_response_id=second["id"], instructions="Be kind.")
    answer = f"<｜Assistant｜></think>{ANSWER}<｜end▁of▁sentence｜>"
    chain = f"<｜User｜>one{answer}<｜User｜>two{answer}<｜User｜>three<｜Assistant｜><think>"
    assert prompt_of(v41).endswith(chain)
    assert "Be kind." in prompt_of(v41) and "Be brief." not in prompt_of(v41)
    # what was answered is kept whole, also when the responses before it are gone
    for id_ in (first["id"], second["id"]):
        assert v41.client.delete(f"/v1/responses/{id_}").json()["deleted"] is True
    ask(v41, input="four", previous_response_id=third["id"])
    assert prompt_of(v41).endswith(
        f"{chain}</think>{ANSWER}<｜end▁of▁sentence｜><｜User｜>four<｜Assistant｜><think>".replace(
            "three<｜Assistant｜><think></think>", "three<｜Assistant｜></think>"
        )
    )
    items = v41.client.get(f"/v1/responses/{third['id']}/input_items?order=asc").json()["data"]
    kinds = [(item["type"], item.get("role")) for item in items]
    turn = [("message", "user"), ("reasoning", None), ("message", "assistant")]
    assert kinds == [*turn, *turn, ("message", "user")]


def test_a_call_is_answered_by_naming_the_response(v41):
    v41.engine.content = CALL
    first = ask(v41, tools=TOOLS)
    v41.engine.content = ANSWER
    result = {"type": "function_call_output", "call_id": first["output"][-1]["call_id"]}
    ask(v41, previous_response_id=first["id"], input=[{**result, "output": "42"}], tools=TOOLS)
    assert "<tool_result>42</tool_result>" in prompt_of(v41)
    unanswered = v41.client.post(
        "/v1/responses", json={"input": "so?", "previous_response_id": first["id"]}
    )
    assert unanswered.status_code == 400
    assert unanswered.json()["error"]["message"] == "No tool output found for a tool call."


def test_references_stand_for_kept_items(v41):
    first = ask(v41, input="one")
    asked = v41.client.get(f"/v1/responses/{first['id']}/input_items").json()["data"][0]
    thought, answer = first["output"]
    empty = {"type": "reasoning", "id": thought["id"], "summary": []}
    items = [
        {"type": "item_reference", "id": asked["id"]},
        {**empty, "encrypted_content": thought["encrypted_content"]},
        {"id": answer["id"]},
        {"role": "user", "content": "two"},
    ]
    ask(v41, input=items, tools=TOOLS)
    assert prompt_of(v41).endswith(
        f"<｜User｜>one<｜Assistant｜><think>{THOUGHT}</think>{ANSWER}<｜end▁of▁sentence｜>"
        "<｜User｜>two<｜Assistant｜><think>"
    )


def test_a_request_reads_a_bounded_number_of_responses(v41):
    references = [{"type": "item_reference", "id": f"msg_{ask(v41)['id']}_in0"} for _ in range(17)]
    ask(v41, input=references[:16] * 2)
    reply = v41.client.post("/v1/responses", json={"input": references})
    assert reply.json()["error"]["param"] == "input[16].id"


def test_what_shall_not_be_kept_is_not(v41):
    reply = ask(v41, store=False)
    assert reply["store"] is False
    assert v41.client.get(f"/v1/responses/{reply['id']}").status_code == 404


def test_unknown_responses(v41):
    for method, path in (
        ("GET", f"/v1/responses/{UNKNOWN}"),
        ("GET", "/responses/%00x"),
        ("GET", f"/v1/responses/{UNKNOWN}/input_items"),
        ("POST", f"/v1/responses/{UNKNOWN}/cancel"),
        ("DELETE", f"/v1/responses/{UNKNOWN}"),
    ):
        reply = v41.client.request(method, path)
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "response_not_found"
    reply = v41.client.post("/v1/responses", json={"input": "hi", "previous_response_id": UNKNOWN})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["code"] == "previous_response_not_found"
    assert error["param"] == "previous_response_id"


def test_another_key_finds_nothing(start, scripted):
    digests = tuple(sha256(key.encode()).digest() for key in KEYS)
    engine = scripted(byte_tokenizer(V41), context=1 << 16, step_seconds=0.005)
    engine.content = "x" * 3000
    with start(engine, Access(key_digests=digests), DeepSeekV41()) as live:
        mine, other = ({"Authorization": f"Bearer {key}"} for key in KEYS)
        post = live.client.post
        body = {"input": "secret", "max_output_tokens": 50}
        done = post("/v1/responses", json=body, headers=mine).json()
        body = {"input": "secret", "background": True}
        running = post("/v1/responses", json=body, headers=mine).json()
        for id_ in (done["id"], running["id"]):
            for method, path in (("GET", ""), ("GET", "/input_items"), ("POST", "/cancel")):
                url = f"/v1/responses/{{}}{path}"
                theirs = live.client.request(method, url.format(id_), headers=other)
                nobodys = live.client.request(method, url.format(UNKNOWN), headers=other)
                assert (theirs.status_code, theirs.content) == (404, nobodys.content)
            assert live.client.delete(f"/v1/responses/{id_}", headers=other).status_code == 404
            body = {"input": "x", "previous_response_id": id_}
            assert post("/v1/responses", json=body, headers=other).status_code == 400
            reference = {"type": "item_reference", "id": f"msg_{id_}_in0"}
            body = {"input": [reference, {"role": "user", "content": "x"}]}
            assert post("/v1/responses", json=body, headers=other).status_code == 400
        reference = {"type": "item_reference", "id": f"msg_{done['id']}_in0"}
        body = {"input": [reference], "max_output_tokens": 1}
        assert post("/v1/responses", json=body, headers=mine).status_code == 200
        assert live.client.get(f"/v1/responses/{done['id']}", headers=mine).json() == done
        cancelled = post(f"/v1/responses/{running['id']}/cancel", headers=mine).json()
        assert cancelled["status"] == "cancelled"
        assert live.client.get(f"/v1/responses/{done['id']}").status_code == 401


def kept(size: int) -> Kept:
    return Kept(b"x" * size, b"")


def test_the_store_is_bounded_in_number_and_bytes():
    store = ResponseStore(max_responses=3, max_bytes=100)
    for index in range(5):
        store.put(b"a", f"r{index}", kept(10))
    assert (len(store), store.bytes) == (3, 30)
    assert store.get(b"a", "r1") is None and store.get(b"a", "r2") is not None
    store.put(b"b", "big", kept(85))
    assert (len(store), store.bytes) == (2, 95)  # the oldest went, of whichever key
    assert store.get(b"a", "r4") is not None
    store.put(b"b", "big", kept(20))  # again, smaller
    assert (len(store), store.bytes) == (2, 30)
    store.put(b"b", "too big", kept(101))
    assert (len(store), store.bytes) == (0, 0)
    assert store.delete(b"b", "big") is False


def test_the_store_counts_what_it_holds():
    store = ResponseStore(max_responses=10, max_bytes=200)
    lot = random.Random(1)
    for _ in range(500):
        owner, id_ = lot.choice((b"", b"a")), str(lot.randrange(15))
        if lot.random() < 0.3:
            store.delete(owner, id_)
        else:
            store.put(owner, id_, Kept(b"x" * lot.randrange(60), b"y" * lot.randrange(60)))
        held = [store.get(o, str(i)) for o in (b"", b"a") for i in range(15)]
        assert store.bytes == sum(k.size for k in held if k) <= 200
        assert len(store) == sum(k is not None for k in held) <= 10


def test_a_format_without_tools_answers_too(live):
    first = ask(live, instructions="Be brief.")
    assert [item["type"] for item in first["output"]] == ["reasoning", "message"]
    assert first["output"][1]["content"][0]["text"] == "132 é"
    ask(live, input="next", previous_response_id=first["id"])
    assert prompt_of(live).endswith(
        "<｜User｜>hi<｜Assistant｜>132 é<｜end▁of▁sentence｜>"
        "<｜User｜>next<｜Assistant｜><think>\n"
    )
    refused = live.client.post("/v1/responses", json={"input": "hi", "tools": TOOLS})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tools")


# --- in the background ---


def wait_for(live, id_: str, eventually) -> dict[str, Any]:
    def over() -> bool:
        return live.client.get(f"/v1/responses/{id_}").json()["status"] != "in_progress"

    assert eventually(over)
    return live.client.get(f"/v1/responses/{id_}").json()


def test_a_background_response_is_written_without_its_client(v41, eventually):
    v41.engine.step_seconds = 0.01
    begun = ask(v41, background=True)
    assert (begun["status"], begun["output"], begun["background"]) == ("in_progress", [], True)
    assert v41.client.get(f"/v1/responses/{begun['id']}").json() == begun
    items = v41.client.get(f"/v1/responses/{begun['id']}/input_items").json()["data"]
    assert items[0]["content"] == [{"type": "input_text", "text": "hi"}]
    too_early = v41.client.post(
        "/v1/responses", json={"input": "x", "previous_response_id": begun["id"]}
    )
    assert too_early.json()["error"]["param"] == "previous_response_id"
    done = wait_for(v41, begun["id"], eventually)
    assert done["status"] == "completed" and done["usage"]["output_tokens"] > 0
    assert done["output"][1]["content"][0]["text"] == ANSWER
    ended = v41.client.post(f"/v1/responses/{begun['id']}/cancel")
    assert (ended.status_code, ended.json()) == (200, done)  # harmless
    ask(v41, previous_response_id=begun["id"])


def test_a_background_response_can_be_cancelled(v41, eventually):
    v41.engine.step_seconds, v41.engine.content = 0.01, "x" * 3000
    begun = ask(v41, background=True)
    written = v41.engine.open[f"{begun['id']}-0"]
    assert eventually(lambda: written.done > len(THOUGHT) + 10)
    cancelled = v41.client.post(f"/v1/responses/{begun['id']}/cancel").json()
    assert (cancelled["status"], cancelled["error"]) == ("cancelled", None)
    thought, answer = cancelled["output"]
    assert (thought["status"], answer["status"]) == ("completed", "incomplete")
    assert "xxx" in answer["content"][0]["text"]
    assert eventually(lambda: not v41.engine.open)
    assert v41.client.get(f"/v1/responses/{begun['id']}").json() == cancelled
    again = v41.client.post(f"/v1/responses/{begun['id']}/cancel")
    assert (again.status_code, again.json()) == (200, cancelled)
    body = {"input": "x", "previous_response_id": begun["id"]}
    assert v41.client.post("/v1/responses", json=body).status_code == 400


def test_deleting_a_background_response_stops_it(v41, eventually):
    v41.engine.step_seconds, v41.engine.content = 0.01, "x" * 3000
    begun = ask(v41, background=True)
    assert v41.client.delete(f"/v1/responses/{begun['id']}").status_code == 200
    assert eventually(lambda: not v41.engine.open)
    assert v41.client.get(f"/v1/responses/{begun['id']}").status_code == 404


def test_a_background_response_that_fails_says_so(v41, eventually):
    v41.engine.rejects = True
    failed = wait_for(v41, ask(v41, background=True)["id"], eventually)
    assert failed["status"] == "failed"
    assert failed["error"] == {"code": "server_error", "message": "No finite number."}


def test_only_background_responses_are_cancelled(v41):
    reply = v41.client.post(f"/v1/responses/{ask(v41)['id']}/cancel")
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == "Only a background response can be cancelled."


def test_a_server_stops_with_background_responses_open(start, scripted):
    engine = scripted(byte_tokenizer(V41), context=1 << 16, step_seconds=0.01)
    engine.content = "x" * 100_000
    with start(engine, encoder=DeepSeekV41()) as live:
        assert ask(live, background=True)["status"] == "in_progress"
    assert not engine.open


def test_a_client_that_leaves_stops_its_stream(v41, eventually):
    v41.engine.step_seconds, v41.engine.content = 0.01, "x" * 3000
    body = {"input": "hi", "stream": True}
    with v41.client.stream("POST", "/v1/responses", json=body) as reply:
        data = next(line for line in reply.iter_lines() if line.startswith("data: "))
        id_ = json.loads(data.removeprefix("data: "))["response"]["id"]
    assert eventually(lambda: not v41.engine.open)
    assert v41.client.get(f"/v1/responses/{id_}").status_code == 404


# --- what is honoured and what is refused ---


def test_settings_reach_the_engine_and_are_repeated(v41):
    reply = ask(v41, temperature=0.25, top_p=0.5, max_output_tokens=40, seed=7, stop=["zz"])
    params = v41.engine.seen[-1].params
    assert (params.temperature, params.top_p, params.max_tokens) == (0.25, 0.5, 40)
    assert (params.seed, params.stop, params.logprobs) == (7, ("zz",), None)
    assert (reply["temperature"], reply["top_p"], reply["max_output_tokens"]) == (0.25, 0.5, 40)
    assert ask(v41)["temperature"] == 0.6  # the model's own
    echoed = {"user": "u", "safety_identifier": "s", "prompt_cache_key": "k", "max_tool_calls": 3}
    reply = ask(v41, **echoed, parallel_tool_calls=False, service_tier="auto")
    assert {name: reply[name] for name in echoed} == echoed
    assert reply["parallel_tool_calls"] is False
    cut = ask(v41, max_output_tokens=3)
    assert (cut["status"], cut["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_output_tokens"},
    )


def test_a_summary_that_is_not_written_is_named_in_a_header(v41):
    body = {"input": "hi", "reasoning": {"summary": "auto"}}
    reply = v41.client.post("/v1/responses", json=body)
    assert reply.headers["X-Ignored-Fields"] == "reasoning.summary"
    assert "X-Ignored-Fields" not in v41.client.post("/v1/responses", json={"input": "x"}).headers


def test_effort_none_switches_thinking_off(v41):
    v41.engine.reasoning = None
    reply = ask(v41, reasoning={"effort": "none"})
    assert prompt_of(v41).endswith("<｜Assistant｜></think>")
    assert [item["type"] for item in reply["output"]] == ["message"]


def test_forced_calls_are_constrained(v41):
    v41.engine.reasoning, v41.engine.content = None, CALL
    for choice in ("required", {"type": "function", "name": "get"}):
        reply = ask(v41, tools=TOOLS, tool_choice=choice, reasoning={"effort": "none"})
        assert reply["tool_choice"] == choice
        assert v41.engine.seen[-1].params.grammar is not None


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
        for _ in range(400):
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
