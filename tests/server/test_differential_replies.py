"""Replies in the shape of Chat Completions as DeepSeek's own library writes them.

Several hundred random replies, half of them damaged, go through our renderer and the library's
stream processor, token by token the same. Neighbouring deltas of a field are joined, as how much
of it comes at once is nobody's promise; ids and times are masked. `Known` is the one
list of what is meant to differ; each entry is shown to differ still.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from ingle.prompt.encoder import DSML, END_THINK
from ingle.server.chat import ChatCompletions
from ingle.server.chat_render import ChatRenderer
from tests.prompt.parsing import as_tokens
from tests.prompt.test_parser_official import TOOL, differs, reply
from tests.server.differential import Body, Model, added, frames, load_models, recipe

CASES = 330


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return load_models()


@pytest.fixture(scope="module", params=["deepseek_v4", "deepseek_v41"])
def model(request: pytest.FixtureRequest, models: dict[str, Model]) -> Model:
    return models[request.param]


@dataclass
class Written:
    """One reply as both sides write it: chunks and the whole."""

    chunks: list[Body]
    whole: Body
    their_chunks: list[Body]
    their_whole: Body


def ask(thinking: bool = True, tools: bool = True, **more: Any) -> Body:
    body: Body = {"messages": [{"role": "user", "content": "Q"}], "stream": True}
    body["thinking"] = {"type": "enabled" if thinking else "disabled"}
    return body | ({"tools": [TOOL]} if tools else {}) | more


def write(model: Model, body: Body, text: str, finish: str = "Stop", group: int = 3) -> Written:
    """Send the tokens of a reply through both sides."""
    tokens = [token for token, _ in as_tokens(text, model.tokenizer)]
    reply, prepared = model.begin(ChatCompletions(model.service()).prepare, body)
    renderer = ChatRenderer(
        id="ID",
        created=123,
        model="MODEL",
        fingerprint="fp",
        tokenizer=model.tokenizer,
        replies=[reply],
        thinking=prepared.thinking,
        logprobs=bool(body.get("logprobs")),
        include_usage=bool(body.get("stream_options")),
    )
    stream = renderer.start()
    for event in model.events(prepared, tokens, finish, group):
        stream += renderer.added(added(reply, event))
    stream += renderer.end()
    kind, whole = recipe.ChatCompletionRequest, recipe.ChatCompletionResponse
    theirs = model.chunks(kind, whole, body, tokens, finish)
    return Written(frames(stream), renderer.completion(), *theirs)


def masked(chunk: Body) -> Body:
    """Without time, and calls without their random letters."""
    message = chunk["choices"][0].get("delta") or chunk["choices"][0].get("message")
    for call in message.get("tool_calls", ()):
        if "id" in call:
            assert re.fullmatch(r"call_\d\d_\w{20,30}", call["id"])
            call["id"] = call["id"][:7]
    return chunk | {"created": 0}


class Known:
    """The one list of known differences: each method takes one out of a pair, and counts it."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def reasoning(self, ours: Body) -> None:
        """`reasoning`, the spelling of other servers, stands beside `reasoning_content`."""
        if "reasoning_content" in ours:
            assert ours.pop("reasoning") == ours["reasoning_content"]
            self.seen["reasoning"] += 1

    def nulls(self, ours: Body, theirs: Body) -> None:
        """A whole message has all fields that strict clients of OpenAI's look for, a null for no
        thinking and an empty text for no thought."""
        assert ours.pop("refusal") is None
        if "reasoning_content" not in theirs:
            assert not ours.pop("reasoning_content") and not ours.pop("reasoning")
            self.seen["null reasoning"] += 1
        self.seen["nulls"] += 1

    def content(self, ours: Body, theirs: Body) -> None:
        """Beside calls a content that is empty is null, as OpenAI writes it."""
        if ours["content"] is None:
            assert ours["tool_calls"] and theirs["content"] == ""
            ours["content"] = ""
            self.seen["null content"] += 1

    def usage(self, ours: Body, theirs: Body) -> None:
        """All tokens of a thought are counted, and without thinking there are 0. The library
        leaves out newlines and tags that are not shown, and without thinking the count."""
        mine = ours.pop("completion_tokens_details")["reasoning_tokens"]
        other = theirs.pop("completion_tokens_details", {"reasoning_tokens": 0})["reasoning_tokens"]
        assert 0 <= mine - other <= 5
        self.seen["reasoning tokens"] += mine > other


def field_of(delta: Body) -> tuple[Any, ...]:
    """What may be joined: deltas of one field or call that are not the first or the last."""
    if "tool_calls" in delta:
        call = delta["tool_calls"][0]
        return "tool_calls", call["index"], "id" in call
    name = "content" if delta.get("content") is not None else "reasoning_content"
    return name, -1, "role" in delta


def joined(chunks: list[Body]) -> list[Body]:
    """Chunks with neighbouring deltas of one field made one."""
    out: list[Body] = []
    for chunk in map(masked, chunks):
        choice = chunk["choices"][0]
        delta = choice["delta"]
        field = name, _, starts = field_of(delta)
        last = out[-1]["choices"][0]["delta"] if out else {}
        if starts or choice["finish_reason"] or not out or field_of(last) != field:
            out.append(chunk)
        elif name == "tool_calls":
            function = last["tool_calls"][0]["function"]
            function["arguments"] += delta["tool_calls"][0]["function"]["arguments"]
        else:
            for key in {name, "reasoning"} & last.keys() if name != "content" else {name}:
                last[key] += delta[key]
    return out


@pytest.mark.slow
def test_random_replies_are_written_alike(model: Model) -> None:
    rng, known = random.Random(model.name), Known()
    compared = with_calls = 0
    ends: Counter[str] = Counter()
    while compared < CASES:
        thinking, tools = rng.random() < 0.8, rng.random() < 0.85
        text, finish = reply(rng, model.name), rng.choice(("Stop", "Length"))
        if not thinking:
            text = text.replace(END_THINK, "", 1)
        if differs(text, thinking) or not (tools or DSML not in text):
            continue  # the parser's own tests are about these
        more = {"stream_options": {"include_usage": True}} if rng.random() < 0.4 else {}
        written = write(model, ask(thinking, tools, **more), text, finish, rng.choice((1, 2, 7)))
        check_chunks(written, known)
        check_whole(written, known)
        compared += 1
        with_calls += "tool_calls" in written.their_whole["choices"][0]["message"]
        ends[written.their_whole["choices"][0]["finish_reason"]] += 1
    assert with_calls > 150 and len(ends) == 3 and min(ends.values()) > 30
    assert all(
        known.seen[name] > 10
        for name in ("reasoning", "nulls", "null reasoning", "null content", "reasoning tokens")
    )


def check_chunks(written: Written, known: Known) -> None:
    ours, theirs = joined(written.chunks), joined(written.their_chunks)
    for chunk in ours:
        known.reasoning(chunk["choices"][0]["delta"])
    known.usage(ours[-1]["usage"], theirs[-1]["usage"])
    assert ours == theirs


def check_whole(written: Written, known: Known) -> None:
    ours, theirs = masked(written.whole), masked(written.their_whole)
    message, other = (side["choices"][0]["message"] for side in (ours, theirs))
    known.nulls(message, other)
    known.reasoning(message)
    known.content(message, other)
    known.usage(ours["usage"], theirs["usage"])
    assert ours == theirs


def message_of(whole: Body) -> Body:
    return whole["choices"][0]["message"]


@pytest.mark.parametrize("stop", [["b"], ["de"], ["e", "d"], ["zz"], ["f", "c"]])
def test_stop_strings_end_the_answer_only(model: Model, stop: list[str]) -> None:
    """A stop string in the thought ends nothing."""
    for text in ("ab</think>cdefg", "ab</think>\n\nabc", "abcdef"):
        written = write(model, ask(stop=stop), text)
        check_chunks(written, Known())
        check_whole(written, Known())


def test_stop_strings_end_no_call(model: Model) -> None:
    blank, block = (" ", " calls") if model.name == "deepseek_v41" else ("", "tool_calls")
    text = (
        f'T</think>Hi\n\n<{DSML}{block}>\n<{DSML}{blank}invoke name="f">\n<{DSML}{blank}parameter '
        f'name="k" string="true">stop here</{DSML}{blank}parameter>\n</{DSML}{blank}invoke>\n'
        f"</{DSML}{block}>"
    )
    for stop in (["stop"], ["invoke"], ["DSML"], ["here", "k"]):
        written = write(model, ask(stop=stop), text)
        check_chunks(written, Known())
        check_whole(written, Known())
        arguments = message_of(written.whole)["tool_calls"][0]["function"]["arguments"]
        assert arguments == '{"k": "stop here"}'


def test_a_continued_answer_begins_in_its_field(model: Model) -> None:
    def go_on(thinking: bool, text: str, **fields: str) -> Written:
        last = {"role": "assistant", "prefix": True, **fields}
        messages = [{"role": "user", "content": "Q"}, last]
        return write(model, ask(thinking, False, messages=messages), text)

    for written in (
        go_on(True, "\nab", content="x"),
        go_on(True, "\nab", content="x", reasoning_content="R"),
        go_on(True, "\nab\n</think>\nc", content=""),
        go_on(True, "\nab\n</think>\nc", content="", reasoning_content="R"),
        go_on(False, "ab", content="x"),
    ):
        check_chunks(written, Known())
        check_whole(written, Known())
    # The newline is the text's own; the library takes it for the format's without thinking.
    written = go_on(False, "\nab", content="x")
    assert message_of(written.whole)["content"] == "\nab"
    assert message_of(written.their_whole)["content"] == "ab"


def test_without_tools_calls_are_text(model: Model) -> None:
    text = f"T</think>Hi\n\n<{DSML}tool_calls>\n"
    written = write(model, ask(tools=False), text)
    assert message_of(written.their_whole)["content"] == f"Hi\n\n<{DSML}tool_calls>\n"
    assert "tool_calls" not in message_of(written.whole)


def test_json_is_not_cut_out_of_the_answer(model: Model) -> None:
    """The library blanks what stands round a JSON; here the grammar leaves nothing to blank."""
    messages = [{"role": "user", "content": "json"}]
    body = ask(False, False, messages=messages, response_format={"type": "json_object"})
    text = '```json\n{"a": 1}\n``` ok'
    written = write(model, body, text)
    assert message_of(written.whole)["content"] == text
    assert message_of(written.their_whole)["content"].strip() == '{"a": 1}'


def test_logprobs_name_every_token(model: Model) -> None:
    """Tokens of the format are named, too, and both lists are always there; what both name is
    the same."""
    written = write(model, ask(tools=False, logprobs=True), "I th\n\n</think>\n\nHi é👩‍🚀")
    ours = written.whole["choices"][0]["logprobs"]
    assert ours.pop("refusal") is None
    names = [[entry["token"] for entry in ours[kind]] for kind in ("reasoning_content", "content")]
    assert names[0][-2:] == ["\n\n", "</think>"] and names[1][0] == "\n\n"
    assert "\\xf0\\x9f\\x91" in names[1]
    spelled = bytes(byte for entry in ours["content"] for byte in entry["bytes"])
    assert spelled.decode() == "\n\nHi é👩‍🚀"
