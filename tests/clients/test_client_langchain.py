"""Chat models through `langchain-openai`, both of its ways to ask."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel
from scripted import HEARD as HEARD_PREFIX
from scripted import THOUGHT
from serving import SCRIPTED, Live
from weather import DESCRIPTION, HEARD, NAME, QUESTION, get_weather

langchain_openai = pytest.importorskip("langchain_openai")
messages = pytest.importorskip("langchain_core.messages")
tools = pytest.importorskip("langchain_core.tools")

pytestmark = pytest.mark.nightly


def chat_model(live: Live, **options: Any) -> Any:
    options = {"model": live.model, "api_key": "none", "max_retries": 0} | options
    return langchain_openai.ChatOpenAI(base_url=live.base, **options)


@pytest.fixture
def model(scripted: Live) -> Any:
    return chat_model(scripted)


@pytest.fixture
def weather() -> Any:
    return tools.StructuredTool.from_function(get_weather, name=NAME, description=DESCRIPTION)


def test_invoke(model: Any) -> None:
    reply = model.invoke([("system", "Be brief."), ("human", "Say é 😀 twice")])
    assert reply.content == "Say é 😀 twice"
    assert reply.response_metadata["finish_reason"] == "stop"
    assert reply.response_metadata["model_name"] == SCRIPTED
    usage = reply.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["output_token_details"]["reasoning"] == len(THOUGHT) + 1


def test_stream(model: Any) -> None:
    chunks = list(model.stream("Say é 😀 twice"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.content == "Say é 😀 twice"
    assert whole.response_metadata["finish_reason"] == "stop"
    assert whole.usage_metadata["output_tokens"] > len(THOUGHT)


def test_async_and_batch(model: Any) -> None:
    async def main() -> list[str]:
        streamed = "".join([chunk.content async for chunk in model.astream("one")])
        return [streamed, (await model.ainvoke("two")).content]

    assert asyncio.run(main()) == ["one", "two"]
    assert [reply.content for reply in model.batch(["a", "b", "c"])] == ["a", "b", "c"]


@pytest.mark.parametrize("streams", [False, True])
def test_a_whole_tool_loop(model: Any, weather: Any, streams: bool) -> None:
    bound = model.bind_tools([weather])
    turns = [messages.HumanMessage(QUESTION)]
    for _ in range(2):
        reply = ask(bound, turns, streams)
        turns += [reply, *(weather.invoke(call) for call in reply.tool_calls)]
    assert [message.type for message in turns[2:4]] == ["tool", "tool"]
    assert turns[-1].content == HEARD


def ask(model: Any, turns: list[Any], streams: bool) -> Any:
    """The reply to a conversation, whole or put together from its chunks."""
    if not streams:
        return model.invoke(turns)
    first, *rest = model.stream(turns)
    return sum(rest, start=first)


def test_calls_can_be_demanded(scripted: Live, weather: Any) -> None:
    quiet = chat_model(scripted, reasoning_effort="none")
    for choice in ("any", NAME):
        reply = quiet.bind_tools([weather], tool_choice=choice, strict=True).invoke(QUESTION)
        assert [call["args"]["city"] for call in reply.tool_calls] == ["Paris", "Oslo"]


class Answer(BaseModel):
    """Whether the number is even."""

    even: bool


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_structured_output(reasoner: Live, scripted: Live, method: str) -> None:
    if method == "json_schema":
        model, question = chat_model(reasoner, seed=1), "What is 47 + 85?"
    else:  # needs a model that knows JSON, and the word in the question
        model = chat_model(scripted, stop=[" json"])
        question = '{"even": true} json'
    found = model.with_structured_output(Answer, method=method).invoke(question)
    assert isinstance(found, Answer)


def test_structured_output_by_a_tool(scripted: Live) -> None:
    class City(BaseModel):
        """A city."""

        city: str

    quiet = chat_model(scripted, reasoning_effort="none")
    structured = quiet.with_structured_output(City, method="function_calling")
    assert structured.invoke("Where is Oslo?") == City(city="Oslo")


def test_the_responses_api(scripted: Live, weather: Any) -> None:
    model = chat_model(scripted, use_responses_api=True)
    assert model.invoke("Say it").text == "Say it"
    assert "".join(chunk.text for chunk in model.stream("Say it")) == "Say it"
    turns = [messages.HumanMessage(QUESTION)]
    for _ in range(2):
        reply = model.bind_tools([weather]).invoke(turns)
        turns += [reply, *(weather.invoke(call) for call in reply.tool_calls)]
    assert turns[-1].text == HEARD and HEARD.startswith(HEARD_PREFIX)
