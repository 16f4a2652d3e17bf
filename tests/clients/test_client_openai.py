"""Chat Completions and Completions through the `openai` package for Python."""

from __future__ import annotations

import asyncio
import json
from enum import StrEnum

import openai
import pytest
from openai.types.chat import ChatCompletion
from pydantic import BaseModel
from scripted import SLOWLY, THOUGHT
from serving import SCRIPTED, Live
from weather import HEARD, QUESTION, get_weather, openai_tool

USUAL = [{"role": "user", "content": "Say é 😀 twice"}]


@pytest.fixture
def client(scripted: Live) -> openai.OpenAI:
    return openai.OpenAI(base_url=scripted.base, api_key="none", max_retries=0)


def test_a_whole_reply(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=SCRIPTED, messages=USUAL)
    choice = reply.choices[0]
    assert choice.message.content == "Say é 😀 twice"
    assert choice.message.reasoning_content == THOUGHT
    assert (choice.finish_reason, choice.logprobs, choice.message.refusal) == ("stop", None, None)
    assert (reply.model, reply.object) == (SCRIPTED, "chat.completion")
    assert reply.usage is not None
    assert reply.usage.completion_tokens_details.reasoning_tokens == len(THOUGHT) + 1


def test_a_stream(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=SCRIPTED, messages=USUAL, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == "Say é 😀 twice"
    assert "".join(delta.reasoning_content or "" for delta in deltas[:-1]) == THOUGHT
    assert deltas[0].role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None and chunks[0].usage is None


def test_the_stream_helper_puts_the_whole_reply_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=SCRIPTED, messages=USUAL) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "Say é 😀 twice"
    assert kinds.count("content.delta") > 3 and kinds.count("content.done") == 1


def test_async_and_many_at_once(scripted: Live) -> None:
    async def ask(client: openai.AsyncOpenAI, word: str) -> str:
        messages = [{"role": "user", "content": word}]
        stream = await client.chat.completions.create(
            model=SCRIPTED, messages=messages, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def main() -> list[str]:
        async with openai.AsyncOpenAI(base_url=scripted.base, api_key="none") as client:
            whole = await client.chat.completions.create(model=SCRIPTED, messages=USUAL)
            assert whole.choices[0].message.content == "Say é 😀 twice"
            return await asyncio.gather(*(ask(client, f"word {i}") for i in range(8)))

    assert asyncio.run(main()) == [f"word {i}" for i in range(8)]


def test_thinking_is_switched_off_by_either_field(client: openai.OpenAI) -> None:
    disabled = {"extra_body": {"thinking": {"type": "disabled"}}}
    for switch in (disabled, {"reasoning_effort": "none"}):
        reply = client.chat.completions.create(model=SCRIPTED, messages=USUAL, **switch)
        assert reply.choices[0].message.content == "Say é 😀 twice"
        assert reply.choices[0].message.reasoning_content is None


def test_choices_stop_and_length(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=SCRIPTED, messages=USUAL, n=2, stop=[" 😀"])
    assert [choice.message.content for choice in reply.choices] == ["Say é", "Say é"]
    assert [choice.index for choice in reply.choices] == [0, 1]
    short = client.chat.completions.create(
        model=SCRIPTED, messages=USUAL, max_completion_tokens=3, temperature=0, seed=1
    )
    assert short.choices[0].finish_reason == "length"
    assert short.choices[0].message.reasoning_content == THOUGHT[:3]


def test_logprobs(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "ab"}]
    reply = client.chat.completions.create(
        model=SCRIPTED, messages=messages, logprobs=True, top_logprobs=2
    )
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert [entry.token for entry in logprobs.content] == ["a", "b"]
    assert all(entry.logprob == pytest.approx(0.0, abs=1e-6) for entry in logprobs.content)
    likeliest = logprobs.content[0].top_logprobs
    assert [likeliest[0].token, len(likeliest)] == ["a", 2]
    assert bytes(logprobs.content[1].bytes or []) == b"b"


def test_developer_messages_and_text_parts(client: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    developer = {"role": "developer", "content": "Be brief."}
    messages = [developer, {"role": "user", "content": parts}]
    reply = client.chat.completions.create(model=SCRIPTED, messages=messages)
    assert reply.choices[0].message.content == "one\n\ntwo"


def answered(reply: ChatCompletion) -> list[dict[str, object]]:
    """The assistant's own message, echoed as the package gives it, and the results of its calls."""
    message = reply.choices[0].message
    messages = [message.model_dump()]
    for call in message.tool_calls or []:
        result = get_weather(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return messages


@pytest.mark.parametrize("thinks", [True, False])
def test_a_whole_tool_loop(client: openai.OpenAI, thinks: bool) -> None:
    effort = {} if thinks else {"reasoning_effort": "none"}
    messages: list[dict[str, object]] = [{"role": "user", "content": QUESTION}]
    fields = {"model": SCRIPTED, "tools": [openai_tool()]} | effort
    asked = client.chat.completions.create(messages=messages, **fields)
    assert asked.choices[0].finish_reason == "tool_calls"
    assert asked.choices[0].message.content is None
    assert len({call.id for call in asked.choices[0].message.tool_calls}) == 2
    messages += answered(asked)
    reply = client.chat.completions.create(messages=messages, **fields)
    assert reply.choices[0].message.content == HEARD
    assert reply.choices[0].finish_reason == "stop"


def test_a_streamed_tool_loop(client: openai.OpenAI) -> None:
    messages: list[dict[str, object]] = [{"role": "user", "content": QUESTION}]
    fields = {"model": SCRIPTED, "tools": [openai_tool()]}
    with client.chat.completions.stream(messages=messages, **fields) as stream:
        events = list(stream)
        asked = stream.get_final_completion()
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [json.loads(event.arguments) for event in done] == [{"city": "Paris"}, {"city": "Oslo"}]
    assert not asked.choices[0].message.content
    messages += answered(asked)
    with client.chat.completions.stream(messages=messages, **fields) as stream:
        assert stream.get_final_completion().choices[0].message.content == HEARD


def test_calls_can_be_demanded_and_forbidden(client: openai.OpenAI) -> None:
    ask = {"model": SCRIPTED, "messages": [{"role": "user", "content": QUESTION}]}
    ask |= {"tools": [openai_tool(strict=True)], "reasoning_effort": "none"}
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ("required", named):
        reply = client.chat.completions.create(**ask, tool_choice=choice)
        calls = reply.choices[0].message.tool_calls
        assert [json.loads(c.function.arguments)["city"] for c in calls] == ["Paris", "Oslo"]
    reply = client.chat.completions.create(**ask, tool_choice="none")
    assert reply.choices[0].message.content == QUESTION


class Verdict(StrEnum):
    EVEN = "even"
    ODD = "odd"


class Answer(BaseModel):
    verdict: Verdict
    sure: bool


def test_parse_gives_a_pydantic_object_from_the_reasoner(reasoner: Live) -> None:
    client = openai.OpenAI(base_url=reasoner.base, api_key="none", max_retries=0)
    reply = client.chat.completions.parse(
        model=reasoner.model,
        messages=[{"role": "user", "content": "What is 47 + 85?"}],
        response_format=Answer,
        seed=1,
    )
    assert isinstance(reply.choices[0].message.parsed, Answer)
    assert reply.choices[0].message.reasoning_content
    with client.chat.completions.stream(
        model=reasoner.model,
        messages=[{"role": "user", "content": "What is 47 + 85?"}],
        response_format=Answer,
        seed=1,
    ) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Answer)


def test_parse_reads_the_arguments_of_a_strict_tool(client: openai.OpenAI) -> None:
    class City(BaseModel):
        city: str

    tool = openai.pydantic_function_tool(City, name="get_weather", description="Weather.")
    messages = [{"role": "user", "content": QUESTION}]
    reply = client.chat.completions.parse(model=SCRIPTED, messages=messages, tools=[tool])
    calls = reply.choices[0].message.tool_calls or []
    assert [c.function.parsed_arguments for c in calls] == [City(city="Paris"), City(city="Oslo")]
    messages += answered(reply)  # with what the package has parsed
    again = client.chat.completions.parse(model=SCRIPTED, messages=messages, tools=[tool])
    assert again.choices[0].message.content == HEARD


def test_json_mode(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model=SCRIPTED,
        messages=[{"role": "user", "content": '{"json": [1, 2]}'}],
        response_format={"type": "json_object"},
    )
    assert json.loads(reply.choices[0].message.content or "") == {"json": [1, 2]}


def test_the_reasoner_answers(reasoner: Live) -> None:
    client = openai.OpenAI(base_url=reasoner.base, api_key="none", max_retries=0)
    messages = [{"role": "user", "content": "What is 47 + 85?"}]
    reply = client.chat.completions.create(model=reasoner.model, messages=messages, temperature=0)
    assert reply.choices[0].message.content == "132"
    assert reply.choices[0].message.reasoning_content


def test_completions(client: openai.OpenAI) -> None:
    whole = client.completions.create(model=SCRIPTED, prompt="uv", max_tokens=9, echo=True, n=2)
    assert [choice.text for choice in whole.choices] == ["uvwxyz", "uvwxyz"]
    assert whole.choices[0].finish_reason == "stop"
    stream = client.completions.create(model=SCRIPTED, prompt="a", max_tokens=3, stream=True)
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "bcd"
    assert chunks[-1].choices[0].finish_reason == "length"
    scored = client.completions.create(model=SCRIPTED, prompt="x", max_tokens=9, logprobs=1)
    logprobs = scored.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens is not None
    assert logprobs.tokens[:2] == ["y", "z"]


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [SCRIPTED]
    assert client.models.retrieve(SCRIPTED).object == "model"


def test_a_client_that_leaves_is_cancelled(scripted: Live, client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": f"{SLOWLY} {'word ' * 300}"}]
    stream = client.chat.completions.create(model=SCRIPTED, messages=messages, stream=True)
    next(iter(stream))
    assert scripted.service.open_requests == 1
    stream.close()
    assert scripted.idle()  # long before the half minute that the whole reply takes
