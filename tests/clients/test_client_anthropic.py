"""Messages through the `anthropic` package for Python."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel
from scripted import BROKEN, SLOWLY, THOUGHT
from serving import KEY, SCRIPTED, Live
from weather import DESCRIPTION, HEARD, NAME, QUESTION, SCHEMA, get_weather

USUAL = [{"role": "user", "content": "Say é 😀 twice"}]
TOOLS = [{"name": NAME, "description": DESCRIPTION, "input_schema": SCHEMA}]
ASK = {"model": SCRIPTED, "max_tokens": 512}
QUIET = {"thinking": {"type": "disabled"}}


def client_of(live: Live, path: str = "", **options: Any) -> anthropic.Anthropic:
    options = {"api_key": "none", "max_retries": 0} | options
    return anthropic.Anthropic(base_url=live.url + path, **options)


@pytest.fixture
def client(scripted: Live) -> anthropic.Anthropic:
    return client_of(scripted)


@pytest.mark.parametrize("path", ["", "/anthropic"])
def test_a_message(scripted: Live, path: str) -> None:
    message = client_of(scripted, path).messages.create(messages=USUAL, **ASK)
    thought, text = message.content
    assert (thought.type, thought.thinking) == ("thinking", THOUGHT)
    assert (text.type, text.text) == ("text", "Say é 😀 twice")
    assert thought.signature
    assert (message.role, message.model, message.stop_reason) == ("assistant", SCRIPTED, "end_turn")
    assert message.usage.output_tokens > len(THOUGHT)


def test_events_of_a_stream(client: anthropic.Anthropic) -> None:
    events = list(client.messages.create(messages=USUAL, stream=True, **ASK))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    assert "".join(d.thinking for d in deltas if d.type == "thinking_delta") == THOUGHT
    assert "".join(d.text for d in deltas if d.type == "text_delta") == "Say é 😀 twice"
    assert [d.type for d in deltas].count("signature_delta") == 1
    assert events[-2].delta.stop_reason == "end_turn"


def test_the_stream_helper_puts_the_whole_message_together(client: anthropic.Anthropic) -> None:
    with client.messages.stream(messages=USUAL, **ASK) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[1].text == "Say é 😀 twice"
    assert final.content[0].thinking == THOUGHT
    whole = client.messages.create(messages=USUAL, **ASK)
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.content[0].signature == final.id


def test_async(scripted: Live) -> None:
    async def main() -> tuple[str, str]:
        async with anthropic.AsyncAnthropic(base_url=scripted.url, api_key="none") as client:
            whole = await client.messages.create(messages=USUAL, **ASK, **QUIET)
            async with client.messages.stream(messages=USUAL, **ASK, **QUIET) as stream:
                return whole.content[0].text, await stream.get_final_text()

    assert asyncio.run(main()) == ("Say é 😀 twice", "Say é 😀 twice")


def test_a_system_text_earlier_turns_and_a_begun_answer(client: anthropic.Anthropic) -> None:
    turns = [
        *USUAL,
        {"role": "assistant", "content": client.messages.create(messages=USUAL, **ASK).content},
        {"role": "user", "content": [{"type": "text", "text": "once more"}]},
    ]
    cached = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
    message = client.messages.create(messages=turns, system=[cached], **ASK)
    assert message.content[-1].text == "once more"
    begun = [{"role": "user", "content": "abcdef"}, {"role": "assistant", "content": "abc"}]
    assert client.messages.create(messages=begun, **ASK, **QUIET).content[0].text == "def"


@pytest.mark.parametrize("quiet", [{}, QUIET])
def test_a_whole_tool_loop(client: anthropic.Anthropic, quiet: dict[str, Any]) -> None:
    turns: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
    asked = client.messages.create(messages=turns, tools=TOOLS, **ASK, **quiet)
    assert asked.stop_reason == "tool_use"
    calls = [block for block in asked.content if block.type == "tool_use"]
    assert [call.input for call in calls] == [{"city": "Paris"}, {"city": "Oslo"}]
    turns += [{"role": "assistant", "content": asked.content}, results(calls)]
    reply = client.messages.create(messages=turns, tools=TOOLS, **ASK, **quiet)
    assert (reply.content[-1].text, reply.stop_reason) == (HEARD, "end_turn")


def results(calls: list[Any]) -> dict[str, Any]:
    """The user's message that answers all calls."""
    content = [
        {"type": "tool_result", "tool_use_id": call.id, "content": get_weather(**call.input)}
        for call in calls
    ]
    return {"role": "user", "content": content}


def test_a_streamed_tool_loop(client: anthropic.Anthropic) -> None:
    turns: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
    with client.messages.stream(messages=turns, tools=TOOLS, **ASK) as stream:
        asked = stream.get_final_message()
    calls = [block for block in asked.content if block.type == "tool_use"]
    assert [call.input for call in calls] == [{"city": "Paris"}, {"city": "Oslo"}]
    turns += [{"role": "assistant", "content": asked.content}, results(calls)]
    with client.messages.stream(messages=turns, tools=TOOLS, **ASK) as stream:
        assert stream.get_final_text() == HEARD


def test_the_tool_runner_of_the_package(client: anthropic.Anthropic) -> None:
    @anthropic.beta_tool(name=NAME, description=DESCRIPTION)
    def weather(city: str) -> str:
        return get_weather(city)

    question = [{"role": "user", "content": QUESTION}]
    runner = client.beta.messages.tool_runner(messages=question, tools=[weather], **ASK)
    assert runner.until_done().content[-1].text == HEARD


def test_calls_can_be_demanded_and_forbidden(client: anthropic.Anthropic) -> None:
    ask = ASK | QUIET | {"messages": [{"role": "user", "content": QUESTION}], "tools": TOOLS}
    for choice in ({"type": "any"}, {"type": "tool", "name": NAME}):
        reply = client.messages.create(tool_choice=choice, **ask)
        assert [block.type for block in reply.content] == ["tool_use", "tool_use"]
    one = {"type": "any", "disable_parallel_tool_use": True}
    assert len(client.messages.create(tool_choice=one, **ask).content) == 1
    reply = client.messages.create(tool_choice={"type": "none"}, **ask)
    assert reply.content[0].text == QUESTION


def test_structured_output_from_the_reasoner(reasoner: Live) -> None:
    class Answer(BaseModel):
        even: bool

    message = client_of(reasoner).messages.parse(
        model=reasoner.model,
        max_tokens=512,
        messages=[{"role": "user", "content": "What is 47 + 85?"}],
        output_format=Answer,
    )
    assert isinstance(message.parsed_output, Answer)
    assert message.content[0].type == "thinking"


def test_limits(client: anthropic.Anthropic) -> None:
    usual = {"model": SCRIPTED, "messages": USUAL} | QUIET
    assert client.messages.create(max_tokens=3, **usual).stop_reason == "max_tokens"
    stopped = client.messages.create(max_tokens=99, stop_sequences=["😀"], **usual)
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "😀")
    assert stopped.content[0].text == "Say é "


def test_counted_tokens_are_those_of_the_message(client: anthropic.Anthropic) -> None:
    fields = {"model": SCRIPTED, "messages": USUAL, "tools": TOOLS, "system": "Be brief."}
    counted = client.messages.count_tokens(**fields).input_tokens
    usage = client.messages.create(max_tokens=9, **fields).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    again = client.messages.create(max_tokens=9, **fields).usage
    assert again.cache_read_input_tokens and again.input_tokens < counted


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"extra_body": {"temperature": 3.0}},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"extra_body": {"no_such_field": 1}},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
    ],
)
def test_a_bad_request(client: anthropic.Anthropic, fields: dict[str, Any]) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**ASK | {"messages": USUAL} | fields)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.body["error"]["message"]


def test_errors_have_their_classes(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="another-model", max_tokens=9, messages=USUAL)
    broken = [{"role": "user", "content": BROKEN}]
    with pytest.raises(anthropic.InternalServerError):
        client.messages.create(messages=broken, **ASK)
    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        client.messages.stream(messages=broken, **ASK) as stream,
    ):
        stream.until_done()
    assert caught.value.body["type"] == "error"


def test_keys_in_both_headers(locked: Live) -> None:
    with pytest.raises(anthropic.AuthenticationError):
        client_of(locked).messages.create(messages=USUAL, **ASK)
    for key in ({"api_key": KEY}, {"api_key": None, "auth_token": KEY}):
        message = client_of(locked, **key).messages.create(messages=USUAL, **ASK)
        assert message.stop_reason == "end_turn"


def test_a_client_that_leaves_is_cancelled(scripted: Live, client: anthropic.Anthropic) -> None:
    slow = [{"role": "user", "content": f"{SLOWLY} {'word ' * 300}"}]
    with client.messages.stream(messages=slow, **ASK) as stream:
        next(iter(stream))
        assert scripted.service.open_requests == 1
    assert scripted.idle()


def test_models(client: anthropic.Anthropic) -> None:
    assert [model.id for model in client.models.list()] == [SCRIPTED]
