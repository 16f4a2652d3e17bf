"""Requests of Anthropic's Messages as DeepSeek's own library takes them: prompt, verdict, words.

Random conversations in Anthropic's blocks with random fields go through our endpoint's preparation
and through the library. What is meant to differ stands in `anthropic_differences`.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from typing import Any

import pytest

from ingle.server.anthropic import Messages
from tests.prompt.conversations import Conversations
from tests.server.anthropic_cases import OFF, ON, REFUSED, SAME, TAKEN, USER, text, thought
from tests.server.anthropic_differences import DIFFERENCES
from tests.server.differential import (
    Body,
    Difference,
    Model,
    Outcome,
    Refusal,
    assert_alike,
    assert_differs,
    load_models,
    recipe,
)

CASES = 550


class Blocks:
    """Writes conversations of Chat Completions in Anthropic's shape, one of several at random."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def body(self, asked: Body) -> Body:
        """messages, system and tools of a request of `Conversations`, which has no reminders."""
        # that an empty system text is none is a difference
        messages = [m for m in asked["messages"] if m["role"] != "system" or m["content"]]
        if messages[-1].get("prefix"):
            messages.pop()
        body: Body = {}
        lead = []
        while messages and messages[0]["role"] == "system":
            lead.append(messages.pop(0)["content"])
        if lead:
            body["system"] = lead[0] if len(lead) == 1 and self._coin() else list(map(text, lead))
        body["messages"] = self._messages(messages)
        if "tools" in asked:
            body["tools"] = [self._tool(tool["function"]) for tool in asked["tools"]]
        return body

    def _messages(self, messages: list[Body]) -> list[Body]:
        out: list[Body] = []
        for message in messages:
            role, content = message["role"], message["content"]
            if role == "assistant":
                out.append({"role": role, "content": self._answer(message)})
            elif role == "tool":
                block = {"type": "tool_result", "tool_use_id": message["tool_call_id"]}
                if content or self._coin():
                    block["content"] = [text(content)] if self._coin() else content
                if not (out and _holds_results(out[-1])):
                    out.append({"role": "user", "content": []})
                out[-1]["content"].append(block)
            elif role == "user" and out and _holds_results(out[-1]) and self._coin():
                out[-1]["content"].append(text(content))
            else:
                out.append({"role": role, "content": [text(content)] if self._coin() else content})
        return out

    def _answer(self, message: Body) -> str | list[Body]:
        content, calls = message["content"] or "", message.get("tool_calls", ())
        if "reasoning_content" not in message and not calls and self._coin():
            return content
        blocks = []
        if "reasoning_content" in message:
            blocks.append(thought(message["reasoning_content"]))
        if content or len(blocks) == len(calls) == 0:
            blocks.append(text(content))
        for call in calls:
            function = call["function"]
            arguments = json.loads(function["arguments"])
            blocks.append(
                {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}
            )
        return blocks

    def _tool(self, function: Body) -> Body:
        tool = {"name": function["name"], "input_schema": {"type": "object"}}
        if "description" in function:
            tool["description"] = function["description"]
        if "parameters" in function:
            tool["input_schema"] = function["parameters"]
        return tool

    def _coin(self) -> bool:
        return self._rng.random() < 0.5


def _holds_results(message: Body) -> bool:
    content = message["content"]
    return isinstance(content, list) and content[0]["type"] == "tool_result"


def unquoted(outcome: Outcome) -> Outcome:
    """The library's words without the ids that it quotes, and with a blank that it forgets."""
    if outcome.refusal is None:
        return outcome
    message = re.sub(r"( blocks|immediately after): [^.]*\. Each", r"\1. Each", _words(outcome))
    message = re.sub(r"^(messages\.\d+):`", r"\1: `", message)
    message = message.partition(" Found multiple `tool_result` blocks")[0]
    return replace(outcome, refusal=Refusal(message, outcome.refusal.shape))


def _words(outcome: Outcome) -> str:
    assert outcome.refusal is not None
    return outcome.refusal.message


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return load_models()


@pytest.fixture(scope="module", params=["deepseek_v4", "deepseek_v41"])
def model(request: pytest.FixtureRequest, models: dict[str, Model]) -> Model:
    return models[request.param]


def both(model: Model, body: Body) -> tuple[Outcome, Outcome]:
    prepare = Messages(model.service()).prepare
    return model.ours(prepare, body), model.theirs(recipe.MessagesRequest, body)


def assert_same(model: Model, body: Body) -> Outcome:
    ours, theirs = both(model, body)
    assert_alike(model, body, ours, unquoted(theirs))
    return theirs


@pytest.mark.slow
def test_random_requests_are_taken_alike(model: Model) -> None:
    rng = random.Random(7)
    source, blocks = Conversations(seed=8, reminders=False), Blocks(rng)
    taken = refused = worded = called = 0
    while taken + refused < CASES:
        asked: dict[str, Any] = source.request()
        body = blocks.body(asked)
        if not body["messages"] or body["messages"][-1]["role"] == "assistant":
            continue  # an answer at the end is a difference
        for name in rng.sample(sorted(TAKEN), rng.randint(0, 5)):
            body[name] = rng.choice(TAKEN[name])
        if rng.random() < 0.3:
            body |= rng.choice(REFUSED)
        theirs = assert_same(model, body)
        taken += theirs.refusal is None
        refused += theirs.refusal is not None
        worded += theirs.refusal is not None and not theirs.refusal.shape
        called += "tool_use" in json.dumps(body["messages"])
    assert taken > 350 and refused > 120 and worded > 80 and called > 150


@pytest.mark.parametrize("fields", REFUSED, ids=lambda value: str(value)[:60])
def test_what_both_refuse(model: Model, fields: Body) -> None:
    assert assert_same(model, {"messages": [USER], **fields}).refusal is not None


@pytest.mark.parametrize("fields", SAME, ids=lambda value: str(value)[:60])
def test_what_both_take(model: Model, fields: Body) -> None:
    for thinking in (None, ON, OFF):
        body = {"messages": [USER], "thinking": thinking, **fields}
        assert assert_same(model, body).refusal is None


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: row.why[:60])
def test_what_differs(model: Model, row: Difference) -> None:
    assert_differs(row, *both(model, {"messages": [USER], **row.change()}))


@pytest.mark.parametrize("system", ["", [], [text("")]])
def test_an_empty_system_text_is_none(models: dict[str, Model], system: Any) -> None:
    """As in Chat Completions; here the library writes V4.1's token for it all the same."""
    body = {"messages": [USER], "system": system, "thinking": OFF}
    ours, theirs = both(models["deepseek_v41"], body)
    assert models["deepseek_v41"].text(theirs).count("<｜System｜>") == 1
    assert "<｜System｜>" not in models["deepseek_v41"].text(ours)
    assert ours == both(models["deepseek_v41"], {"messages": [USER], "thinking": OFF})[0]
    assert_same(models["deepseek_v4"], body)
