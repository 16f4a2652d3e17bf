"""Chat Completions through `litellm`, as an OpenAI and as a DeepSeek server."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from scripted import SLOWLY, THOUGHT
from serving import SCRIPTED, Live
from weather import HEARD, QUESTION, get_weather, openai_tool

os.environ.setdefault(
    "LITELLM_LOCAL_MODEL_COST_MAP", "True"
)  # else importing it opens a connection
litellm = pytest.importorskip("litellm")

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.filterwarnings("ignore:.*ReadOnly:UserWarning"),  # about litellm's own types
]
USUAL = [{"role": "user", "content": "Say é 😀 twice"}]


@pytest.fixture(params=["openai", "deepseek"])
def ask(request: pytest.FixtureRequest, scripted: Live) -> dict[str, Any]:
    """The fields of every call: provider and model, where it is, a key."""
    base = {"openai": scripted.base, "deepseek": scripted.url}[request.param]
    model = {"openai": f"openai/{SCRIPTED}", "deepseek": "deepseek/deepseek-reasoner"}
    return {"model": model[request.param], "api_base": base, "api_key": "none", "num_retries": 0}


def test_a_whole_reply(ask: dict[str, Any]) -> None:
    reply = litellm.completion(messages=USUAL, **ask)
    message = reply.choices[0].message
    assert (message.content, message.reasoning_content) == ("Say é 😀 twice", THOUGHT)
    assert reply.choices[0].finish_reason == "stop"
    usage = reply.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens_details.reasoning_tokens == len(THOUGHT) + 1


def test_a_stream(ask: dict[str, Any]) -> None:
    chunks = list(litellm.completion(messages=USUAL, stream=True, **ask))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == "Say é 😀 twice"
    thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thought == THOUGHT
    whole = litellm.stream_chunk_builder(chunks, messages=USUAL)
    assert whole.choices[0].message.content == "Say é 😀 twice"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_async(ask: dict[str, Any]) -> None:
    async def main() -> str:
        stream = await litellm.acompletion(messages=USUAL, stream=True, **ask)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(main()) == "Say é 😀 twice"


@pytest.mark.parametrize("streams", [False, True])
def test_a_whole_tool_loop(ask: dict[str, Any], streams: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    fields = ask | {"tools": [openai_tool()], "stream": streams}
    for _ in range(2):
        reply = litellm.completion(messages=messages, **fields)
        if streams:
            reply = litellm.stream_chunk_builder(list(reply), messages=messages)
        message = reply.choices[0].message
        messages.append(message.model_dump())
        for call in message.tool_calls or []:
            result = get_weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    assert messages[-1]["content"] == HEARD
    assert [message["role"] for message in messages[1:]] == [
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]


def test_thinking_is_switched_off(ask: dict[str, Any]) -> None:
    reply = litellm.completion(messages=USUAL, extra_body={"thinking": {"type": "disabled"}}, **ask)
    assert reply.choices[0].message.content == "Say é 😀 twice"
    assert not getattr(reply.choices[0].message, "reasoning_content", None)


def test_errors(ask: dict[str, Any]) -> None:
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(messages=USUAL, temperature=3.0, **ask)
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(messages=USUAL, **ask | {"model": ask["model"] + "-none"})
    slow = [{"role": "user", "content": f"{SLOWLY} {'word ' * 300}"}]
    with pytest.raises(litellm.Timeout):
        litellm.completion(messages=slow, timeout=0.3, **ask)


def test_the_anthropic_and_responses_routes(scripted: Live) -> None:
    message = litellm.completion(
        model=f"anthropic/{SCRIPTED}",
        api_base=scripted.url,
        api_key="none",
        messages=USUAL,
        max_tokens=99,
    )
    assert message.choices[0].message.content == "Say é 😀 twice"
    response = litellm.responses(
        model=f"openai/{SCRIPTED}", api_base=scripted.base, api_key="none", input="Say it"
    )
    texts = [item.content[0].text for item in response.output if item.type == "message"]
    assert texts == ["Say it"]
