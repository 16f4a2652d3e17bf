"""The Responses API through the `openai` package for Python."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from scripted import SLOWLY, THOUGHT
from serving import SCRIPTED, Live
from weather import DESCRIPTION, HEARD, NAME, QUESTION, SCHEMA, get_weather

TOOLS = [
    {
        "type": "function",
        "name": NAME,
        "description": DESCRIPTION,
        "parameters": SCHEMA,
        "strict": True,
    }
]
SLOW = f"{SLOWLY} {'word ' * 300}"  # takes half a minute


@pytest.fixture
def client(scripted: Live) -> openai.OpenAI:
    return openai.OpenAI(base_url=scripted.base, api_key="none", max_retries=0)


def test_a_whole_response(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model=SCRIPTED, input="Say é 😀 twice", instructions="Be brief."
    )
    assert response.output_text == "Say é 😀 twice"
    thought, message = response.output
    assert (thought.type, thought.content[0].text) == ("reasoning", THOUGHT)
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert (response.status, response.instructions) == ("completed", "Be brief.")
    assert response.usage.output_tokens_details.reasoning_tokens == len(THOUGHT) + 1


def test_a_stream(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model=SCRIPTED, input="Say é 😀 twice", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]
    texts = {"response.output_text.delta": "", "response.reasoning_text.delta": ""}
    for event in events:
        if event.type in texts:
            texts[event.type] += event.delta
    assert list(texts.values()) == ["Say é 😀 twice", THOUGHT]
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "Say é 😀 twice"


def test_the_stream_helper_and_async(scripted: Live) -> None:
    async def main() -> str:
        client = openai.AsyncOpenAI(base_url=scripted.base, api_key="none")
        async with client, client.responses.stream(model=SCRIPTED, input="Say it") as stream:
            return (await stream.get_final_response()).output_text

    assert asyncio.run(main()) == "Say it"


def test_a_conversation_by_the_id_of_its_last_response(client: openai.OpenAI) -> None:
    first = client.responses.create(model=SCRIPTED, input="one")
    second = client.responses.create(model=SCRIPTED, input="two", previous_response_id=first.id)
    assert second.output_text == "two"
    assert second.usage.input_tokens > first.usage.input_tokens
    assert client.responses.retrieve(first.id).output_text == "one"
    items = client.responses.input_items.list(second.id, order="asc").data
    assert [item.type for item in items] == ["message", "reasoning", "message", "message"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def answers(response: Any) -> list[dict[str, Any]]:
    """The results of all calls of a response, as items."""
    return [
        {
            "type": "function_call_output",
            "call_id": item.call_id,
            "output": get_weather(**json.loads(item.arguments)),
        }
        for item in response.output
        if item.type == "function_call"
    ]


@pytest.mark.parametrize("kept", [True, False])
def test_a_whole_tool_loop(client: openai.OpenAI, kept: bool) -> None:
    """The server keeps the conversation, or the client sends all of it, with the package's own
    objects in it."""
    fields = {"model": SCRIPTED, "tools": TOOLS, "store": kept}
    asked = client.responses.create(input=QUESTION, **fields)
    results = answers(asked)
    assert len(results) == 2
    if kept:
        reply = client.responses.create(input=results, previous_response_id=asked.id, **fields)
    else:
        turns = [{"role": "user", "content": QUESTION}, *asked.output, *results]
        reply = client.responses.create(input=turns, **fields)
    assert reply.output_text == HEARD


def test_what_the_package_has_parsed_can_be_sent_back(client: openai.OpenAI) -> None:
    class City(BaseModel):
        city: str

    tool = openai.pydantic_function_tool(City, name=NAME)["function"]
    fields = {"model": SCRIPTED, "tools": [{"type": "function", **tool}]}
    with client.responses.stream(input=QUESTION, **fields) as stream:
        asked = stream.get_final_response()
    calls = [item for item in asked.output if item.type == "function_call"]
    assert [json.loads(call.arguments)["city"] for call in calls] == ["Paris", "Oslo"]
    parsed = client.responses.parse(input=QUESTION, **fields)
    turns = [{"role": "user", "content": QUESTION}, *parsed.output, *answers(parsed)]
    reply = client.responses.parse(input=turns, **fields)
    assert reply.output_text == HEARD
    turns += [*reply.output, {"role": "user", "content": "Say it"}]
    assert client.responses.create(input=turns, model=SCRIPTED).output_text == "Say it"


def test_parse_gives_a_pydantic_object_from_the_reasoner(reasoner: Live) -> None:
    class Answer(BaseModel):
        even: bool

    client = openai.OpenAI(base_url=reasoner.base, api_key="none", max_retries=0)
    response = client.responses.parse(
        model=reasoner.model, input="What is 47 + 85?", text_format=Answer
    )
    assert isinstance(response.output_parsed, Answer)
    again = [*response.output, {"role": "user", "content": "What is 1 + 1?"}]
    question = {"role": "user", "content": "What is 47 + 85?"}
    reply = client.responses.create(model=reasoner.model, input=[question, *again])
    assert reply.status == "completed"


def test_limits(client: openai.OpenAI) -> None:
    short = client.responses.create(model=SCRIPTED, input="Say it", max_output_tokens=3)
    assert (short.status, short.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_in_the_background_and_cancelled(client: openai.OpenAI) -> None:
    begun = client.responses.create(model=SCRIPTED, input=SLOW, background=True)
    assert begun.status in ("queued", "in_progress")
    assert client.responses.retrieve(begun.id).status == begun.status
    assert client.responses.cancel(begun.id).status == "cancelled"
    assert client.responses.retrieve(begun.id).status == "cancelled"


def test_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=SCRIPTED, input=[])
    assert caught.value.param == "input"
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=SCRIPTED, input="x", tools=[{"type": "web_search"}])
    assert caught.value.param and caught.value.param.startswith("tools[0]")
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=SCRIPTED, input="x", previous_response_id="resp_none")
    assert caught.value.param == "previous_response_id"
