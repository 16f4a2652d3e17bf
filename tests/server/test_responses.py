"""The Responses API as clients use it: whole, streamed, in the background."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import openai
import pydantic
import pytest

from ingle.server.responses_items import read_item
from ingle.server.responses_types import as_turn, decode_responses
from tests.server.responding import (
    ANSWER,
    CALL,
    THOUGHT,
    TOOLS,
    ask,
    prompt_of,
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


@pytest.fixture
def client(v41) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{v41.url}/v1", api_key="none", max_retries=0)


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
    with serve_v41(start, scripted, step_seconds=0.01, content="x" * 100_000) as live:
        assert ask(live, background=True)["status"] == "in_progress"
    assert not live.engine.open


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


@pytest.mark.parametrize("strict", [True, False, None])
def test_a_strict_format_closes_the_objects_of_the_answer(strict) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    wanted = {"type": "json_schema", "name": "x", "schema": schema, "strict": strict}
    body = msgspec.json.encode({"input": "hi", "text": {"format": wanted}})
    request = decode_responses(body)
    output = as_turn(request, [read_item(request.items[0], "input[0]", lambda _: None)]).output
    assert output is not None and output.schema == schema
    closed = schema | {"additionalProperties": False, "required": ["a"]}
    assert output.bound == (closed if strict else schema)


def test_a_background_response_explains_its_prefix(live) -> None:
    body = {"input": "hi", "background": True}
    reply = live.client.post("/v1/responses", json=body, headers={"X-Explain-Prefix": "1"})
    assert reply.json()["background"] is True
    assert msgspec.json.decode(reply.headers["x-prefix"])["reason"]
