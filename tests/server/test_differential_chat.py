"""Requests of Chat Completions as DeepSeek's own library takes them: prompt, verdict, words.

Random conversations with random fields go through our endpoint's preparation and through the
library. What is meant to differ stands in `chat_differences`.
"""

from __future__ import annotations

import random
from copy import deepcopy

import pytest

from ingle.server.chat import ChatCompletions
from tests.prompt.conversations import Conversations
from tests.server.chat_cases import OFF, ON, REFUSED, SAME, TAKEN, USER, schema_format
from tests.server.chat_differences import DIFFERENCES
from tests.server.differential import (
    Body,
    Difference,
    Model,
    Outcome,
    assert_alike,
    assert_differs,
    load_models,
    recipe,
)

CASES = 550


def conversation(source: Conversations) -> Body:
    """A random request in the shape of Chat Completions that both sides take."""
    asked = source.request()
    body: Body = {"messages": asked["messages"]}
    if "tools" in asked:
        body["tools"] = asked["tools"]
    elif "response_schema" in asked and "prefix" not in asked["messages"][-1]:
        body["response_format"] = schema_format(asked["response_schema"])
    if not asked.get("thinking", True):
        body["thinking"] = OFF
    if "effort" in asked:
        body["reasoning_effort"] = asked["effort"]
    last = asked["messages"][-1]
    if last.get("prefix") and any("tool_calls" in entry for entry in asked["messages"]):
        asked["messages"].pop()  # the library refuses both together
    return body


def with_fields(body: Body, fields: Body) -> Body:
    """The body with these fields, and without what they cannot go with."""
    changed = deepcopy(body)
    if "tools" in fields:
        changed.pop("response_format", None)
        if changed["messages"][-1].get("prefix"):
            changed["messages"].pop()
    if "response_format" in fields:
        changed.pop("tools", None)
        if changed["messages"][-1].get("prefix"):
            changed["messages"].pop()
        if "messages" not in fields:
            changed["messages"].append(USER)
    if "messages" in fields:
        changed.pop("tools", None)
        changed.pop("response_format", None)
    return changed | fields


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return load_models()


@pytest.fixture(scope="module", params=["deepseek_v4", "deepseek_v41"])
def model(request: pytest.FixtureRequest, models: dict[str, Model]) -> Model:
    return models[request.param]


def both(model: Model, body: Body) -> tuple[Outcome, Outcome]:
    prepare = ChatCompletions(model.service()).prepare
    return model.ours(prepare, body), model.theirs(recipe.ChatCompletionRequest, body)


def assert_same(model: Model, body: Body) -> Outcome:
    ours, theirs = both(model, body)
    assert_alike(model, body, ours, theirs)
    return theirs


@pytest.mark.slow
def test_random_requests_are_taken_alike(model: Model) -> None:
    source, rng = Conversations(seed=5), random.Random(6)
    taken = refused = worded = 0
    for _ in range(CASES):
        body = conversation(source)
        for name in rng.sample(sorted(TAKEN), rng.randint(0, 5)):
            body[name] = rng.choice(TAKEN[name])
        if rng.random() < 0.3:
            body = with_fields(body, rng.choice(REFUSED))
        theirs = assert_same(model, body)
        taken += theirs.refusal is None
        refused += theirs.refusal is not None
        worded += theirs.refusal is not None and not theirs.refusal.shape
    assert taken > 350 and refused > 120 and worded > 70


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
