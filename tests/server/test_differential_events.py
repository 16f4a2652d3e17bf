"""Replies in the shape of Anthropic's Messages as DeepSeek's own library writes them.

Several hundred random replies, half of them damaged, go through our renderer and the library's
stream processor, token by token the same, some of them with stop sequences. Neighbouring deltas of
a block are joined, as how much of it comes at once is nobody's promise; ids of calls are masked.
`Known` is the one list of what is meant to differ; each entry is shown to differ still.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass

import pytest

from ingle.prompt.encoder import DSML, END_THINK
from ingle.server.anthropic import Messages
from ingle.server.anthropic_render import AnthropicRenderer
from tests.prompt.parsing import as_tokens
from tests.prompt.test_parser_official import differs, reply
from tests.server.differential import (
    CACHED_TOKENS,
    PROMPT_TOKENS,
    Body,
    Model,
    added,
    frames,
    load_models,
    recipe,
)

CASES = 330
TOOL = {"name": "f", "input_schema": {"type": "object"}}
STOPS = (["zz"], ["Sure"], ["\n"], ["語", "b>é"], ["<b"], ["ure.", "Su"])


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return load_models()


@pytest.fixture(scope="module", params=["deepseek_v4", "deepseek_v41"])
def model(request: pytest.FixtureRequest, models: dict[str, Model]) -> Model:
    return models[request.param]


@dataclass
class Written:
    """One reply as both sides write it: events and the whole."""

    events: list[Body]
    whole: Body
    their_events: list[Body]
    their_whole: Body


def ask(thinking: bool = True, tools: bool = True, stops: list[str] | None = None) -> Body:
    body: Body = {"max_tokens": 1000, "messages": [{"role": "user", "content": "Q"}]}
    body |= {"thinking": {"type": "enabled" if thinking else "disabled"}, "stop_sequences": stops}
    return body | ({"tools": [TOOL]} if tools else {})


def write(model: Model, body: Body, text: str, finish: str = "Stop", group: int = 3) -> Written:
    """Send the tokens of a reply through both sides."""
    tokens = [token for token, _ in as_tokens(text, model.tokenizer)]
    reply_, prepared = model.begin(Messages(model.service()).prepare, body)
    renderer = AnthropicRenderer("ID", "MODEL", reply_, prepared.thinking, PROMPT_TOKENS)
    stream = renderer.start()
    for event in model.events(prepared, tokens, finish, group):
        stream += renderer.added(added(reply_, event))
    stream += renderer.end()
    names = re.findall(r"^event: (\w+)$", stream.decode(), re.MULTILINE)
    events = frames(stream)
    assert names == [event["type"] for event in events]
    theirs = model.chunks(recipe.MessagesRequest, recipe.MessagesResponse, body, tokens, finish)
    return Written(events, renderer.message(), *theirs)


class Known:
    """The one list of known differences: each method takes one out of a pair, and counts it."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def start(self, ours: Body, theirs: Body) -> None:
        """Before the first token it is not known here what the cache has."""
        mine, other = ours["message"].pop("usage"), theirs["message"].pop("usage")
        assert mine == other | {"input_tokens": PROMPT_TOKENS, "cache_read_input_tokens": 0}
        assert other["cache_read_input_tokens"] == CACHED_TOKENS
        self.seen["start"] += 1

    def input(self, ours: Body, theirs: Body, arguments: str) -> None:
        """Arguments that are no object stay visible in a whole message; the library drops them."""
        if "_malformed" in ours.get("input", ()):
            assert ours["input"] == {"_malformed": arguments} and theirs["input"] == {}
            ours["input"] = {}
            self.seen["malformed"] += 1

    def output(self, ours: Body, theirs: Body) -> None:
        """All tokens are counted, also those that only showed that a stop sequence is there."""
        if theirs["stop_sequence"] is not None:
            more = ours["usage"]["output_tokens"] - theirs["usage"]["output_tokens"]
            assert 0 <= more <= 3
            ours["usage"]["output_tokens"] -= more


def masked(block: Body) -> Body:
    """A block without a call's random letters."""
    if "id" in block and block["type"] == "tool_use":
        assert re.fullmatch(r"call_\d\d_\w{20,30}", block["id"])
        block["id"] = block["id"][:7]
    return block


def joined(events: list[Body]) -> list[Body]:
    """Events with neighbouring deltas of one kind made one."""
    out: list[Body] = []
    for event in events:
        if "content_block" in event:
            masked(event["content_block"])
        last = out[-1] if out else {}
        if (
            event["type"] != "content_block_delta"
            or last.get("type") != event["type"]
            or last["delta"]["type"] != event["delta"]["type"]
        ):
            out.append(event)
        else:
            (name,) = event["delta"].keys() - {"type"}
            last["delta"][name] += event["delta"][name]
    return out


def check(written: Written, known: Known) -> None:
    """Both sides are the same but for what is known."""
    ours, theirs = joined(written.events), joined(written.their_events)
    known.start(ours[0], theirs[0])
    arguments = [
        event["delta"]["partial_json"] for event in ours if "partial_json" in event.get("delta", ())
    ]
    for mine, other in zip(ours, theirs, strict=True):
        if mine["type"] == "message_delta":
            known.output(mine | mine["delta"], other | other["delta"])
        assert mine == other
    mine, other = written.whole, written.their_whole
    for block, their_block in zip(mine["content"], other["content"], strict=True):
        if block["type"] == "tool_use":
            given = arguments.pop(0) if arguments else ""
            known.input(block, their_block, given)
        assert masked(block) == masked(their_block)
    known.output(mine, other)
    assert mine | {"content": []} == other | {"content": []}


@pytest.mark.slow
def test_random_replies_are_written_alike(model: Model) -> None:
    rng, known = random.Random(model.name), Known()
    compared = 0
    ends: Counter[str] = Counter()
    while compared < CASES:
        thinking, tools = rng.random() < 0.8, rng.random() < 0.85
        text, finish = reply(rng, model.name), rng.choice(("Stop", "Length"))
        if not thinking:
            text = text.replace(END_THINK, "", 1)
        if differs(text, thinking) or not (tools or DSML not in text):
            continue  # the parser's own tests are about these
        stops = rng.choice(STOPS) if rng.random() < 0.3 else None
        written = write(model, ask(thinking, tools, stops), text, finish, rng.choice((1, 2, 7)))
        check(written, known)
        compared += 1
        ends[written.whole["stop_reason"]] += 1
    assert len(ends) == 4 and min(ends.values()) > 15
    assert known.seen["start"] == CASES and known.seen["malformed"] > 10
