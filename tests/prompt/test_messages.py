"""What the encoders share: refusals that name the field, and the listed differences."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from ingle.errors import ConfigError, InvalidRequestError
from ingle.prompt.encoder import BOS, CALLS, DSML, EOS, ends_in_reasoning
from ingle.prompt.select import ENCODERS
from ingle.prompt.tokenizer import Tokenizer
from tests.prompt.vocabulary import ENDS, ROLES, THOUGHT, V41, byte_tokenizer

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_tokenizer(V41)


DSML_FORMATS = ("deepseek_v32", "deepseek_v4", "deepseek_v41")


def user(content: Any = "Q") -> dict[str, Any]:
    return {"role": "user", "content": content}


def said(content: Any = "A", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def called(*ids: str, arguments: Any = "{}", content: Any = None) -> dict[str, Any]:
    calls = [
        {"id": i, "type": "function", "function": {"name": f"f{i}", "arguments": arguments}}
        for i in ids
    ]
    return said(content, tool_calls=calls)


def result(of: str, content: str = "R") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": of, "content": content}


def spelled(name: str, tokenizer: Tokenizer, *messages: dict[str, Any], **options: Any) -> str:
    ids = ENCODERS[name].encode(messages, tokenizer, **options)
    return tokenizer.decode(ids, skip_special=False)


BAD_MESSAGES: list[tuple[list[Any], str]] = [
    ([], "messages"),
    (["Hi"], "messages[0]"),
    ([{"role": "critic", "content": "x"}], "messages[0].role"),
    ([{"content": "x"}], "messages[0].role"),
    ([user(None)], "messages[0].content"),
    ([user(3)], "messages[0].content"),
    ([user(["Hi"])], "messages[0].content[0]"),
    ([user([{"type": "image_url"}])], "messages[0].content[0].type"),
    ([user([{"type": "text"}])], "messages[0].content[0].text"),
    ([user(), said()], "messages[1]"),
    ([user(), said(None), user()], "messages[1].content"),
    ([user(), said("A", reasoning_content=3), user()], "messages[1].reasoning_content"),
    ([user(), said("A", reasoning=3), user()], "messages[1].reasoning"),
    ([user(), said(None, reasoning="R"), user()], "messages[1].content"),
    ([user(), said("A", prefix=True), user()], "messages[1].prefix"),
    ([{**user(), "prefix": True}], "messages[0].prefix"),
    ([user(), said("A", prefix=1)], "messages[1].prefix"),
    ([user(), said(None, prefix=True)], "messages[1].content"),
    ([user(), {**called("1"), "prefix": True}], "messages[1].tool_calls"),
    ([user(), result("1")], "messages[1]"),
    ([user(), called("1"), user()], "messages[1].tool_calls"),
    ([user(), called("1")], "messages[1].tool_calls"),
    ([user(), called("1", "1"), result("1")], "messages[1].tool_calls"),
    ([user(), called("1"), result("2")], "messages[2].tool_call_id"),
    ([user(), called("1"), result("1"), result("1")], "messages[3].tool_call_id"),
    ([user(), called("1"), {"role": "tool", "content": "R"}], "messages[2].tool_call_id"),
    ([user(), said(None, tool_calls="f")], "messages[1].tool_calls"),
    ([user(), said(None, tool_calls=[{"id": "1"}])], "messages[1].tool_calls[0].function"),
    (
        [user(), called("1", arguments=None), result("1")],
        "messages[1].tool_calls[0].function.arguments",
    ),
]


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize(("messages", "param"), BAD_MESSAGES)
def test_refusals_name_the_field(
    name: str, messages: list[Any], param: str, tokenizer: Tokenizer
) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        ENCODERS[name].encode(messages, tokenizer)
    assert refusal.value.param == param


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ("f", "tools[0]"),
        ({"type": "web_search", "function": {"name": "f"}}, "tools[0].type"),
        ({"type": "function"}, "tools[0].function"),
        ({"function": {"name": 3}}, "tools[0].function.name"),
        ({"function": {"name": ""}}, "tools[0].function.name"),
        ({"function": {"name": "f\n"}}, "tools[0].function.name"),
        ({"function": {"name": "计算"}}, "tools[0].function.name"),
        ({"function": {"name": "f", "description": 3}}, "tools[0].function.description"),
        ({"function": {"name": "f", "parameters": 3}}, "tools[0].function.parameters"),
    ],
)
def test_refusals_of_tools(tool: Any, param: str, tokenizer: Tokenizer) -> None:
    for name in ENCODERS:
        with pytest.raises(InvalidRequestError) as refusal:
            ENCODERS[name].encode([user()], tokenizer, tools=[tool])
        assert refusal.value.param == param


def test_names_of_tools_are_unique(tokenizer: Tokenizer) -> None:
    for name in ENCODERS:
        with pytest.raises(InvalidRequestError, match=r"^Tool names must be unique\.$"):
            ENCODERS[name].encode([user()], tokenizer, tools=[TOOL, TOOL])


def test_reminders_are_for_the_formats_that_have_them(tokenizer: Tokenizer) -> None:
    reminder = {"role": "latest_reminder", "content": "R"}
    for name in ENCODERS:
        if name in ("deepseek_v4", "deepseek_v41"):
            assert "Q<｜latest_reminder｜>R<" in spelled(name, tokenizer, user(), reminder)
            continue
        with pytest.raises(InvalidRequestError) as refusal:
            ENCODERS[name].encode([user(), reminder], tokenizer)
        assert refusal.value.param == "messages[1].role"


def test_what_json_cannot_hold_is_refused(tokenizer: Tokenizer) -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    for name, value in product(set(ENCODERS) - {"deepseek_llm", "deepseek_coder"}, (set(), nested)):
        tool = {"function": {"name": "f", "parameters": {"a": value}}}
        with pytest.raises(InvalidRequestError, match="must be JSON"):
            ENCODERS[name].encode([user()], tokenizer, tools=[tool])


@pytest.mark.parametrize("name", ["deepseek_llm", "deepseek_coder"])
def test_formats_without_tools_refuse_them(name: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        ENCODERS[name].encode([user()], tokenizer, tools=[TOOL])
    assert refusal.value.param == "tools"
    with pytest.raises(InvalidRequestError) as refusal:
        ENCODERS[name].encode([user(), called("1"), result("1")], tokenizer)
    assert refusal.value.param == "messages"
    ENCODERS[name].encode([user()], tokenizer, tools=[])


@pytest.mark.parametrize("name", ["deepseek_v3", "deepseek_r1"])
def test_a_vocabulary_without_tool_tokens_refuses_tools(name: str) -> None:
    distill = byte_tokenizer((*ENDS, *ROLES, *THOUGHT))
    assert ENCODERS[name].encode([user()], distill)
    for messages, tools in (([user()], [TOOL]), ([user(), called("1"), result("1")], None)):
        with pytest.raises(InvalidRequestError, match="vocabulary"):
            ENCODERS[name].encode(messages, distill, tools=tools)


def test_a_vocabulary_that_lacks_a_token_of_the_format_is_a_config_error() -> None:
    bare = byte_tokenizer(ENDS)
    for name in set(ENCODERS) - {"deepseek_llm"}:
        with pytest.raises(ConfigError, match="no special token"):
            ENCODERS[name].encode([user(), said(), user()], bare)


def test_developer_is_system_and_parts_are_joined(tokenizer: Tokenizer) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    for name in ENCODERS:
        between = "\n\n" if name in ("deepseek_v4", "deepseek_v41") else ""
        plain = [{"role": "system", "content": "S"}, user(f"one {between}two")]
        other = [{"role": "developer", "content": "S"}, user(parts)]
        encoder = ENCODERS[name]
        assert encoder.encode(plain, tokenizer) == encoder.encode(other, tokenizer)


@pytest.mark.parametrize("name", ["deepseek_v3", "deepseek_r1", "deepseek_v31", *DSML_FORMATS])
def test_results_stand_in_the_order_of_their_calls(name: str, tokenizer: Tokenizer) -> None:
    asked = [user(), called("a", "b")]
    sorted_, mixed = (result("a", "1"), result("b", "2")), (result("b", "2"), result("a", "1"))
    assert spelled(name, tokenizer, *asked, *sorted_) == spelled(name, tokenizer, *asked, *mixed)


def test_arguments_may_be_an_object(tokenizer: Tokenizer) -> None:
    messages = [user(), called("1", arguments={"a": "ü"}), result("1")]
    assert '<｜tool▁sep｜>{"a": "ü"}<｜tool▁call▁end｜>' in spelled(
        "deepseek_v31", tokenizer, *messages
    )


def test_a_user_message_closes_the_results(tokenizer: Tokenizer) -> None:
    text = spelled("deepseek_v3", tokenizer, user(), called("1"), result("1"), user("and?"))
    assert "R<｜tool▁output▁end｜><｜tool▁outputs▁end｜><｜User｜>and?<｜Assistant｜>" in text
    text = spelled("deepseek_v31", tokenizer, user(), called("1"), result("1"), user("and?"))
    assert text.endswith("R<｜tool▁output▁end｜><｜User｜>and?<｜Assistant｜><think>")


@pytest.mark.parametrize("name", ["deepseek_r1", "deepseek_r1_0528", "deepseek_v31"])
def test_thoughts_are_cut_wherever_they_stand(name: str, tokenizer: Tokenizer) -> None:
    thought = "<think>hm</think>A"
    messages = [user(), called("1", content=thought), result("1"), said(thought), user()]
    assert "hm" not in spelled(name, tokenizer, *messages)


def test_only_a_client_that_keeps_reasoning_apart_may_write_the_tag(tokenizer: Tokenizer) -> None:
    for name in ("deepseek_r1", "deepseek_v31"):
        apart = said("a </think> tag", reasoning_content="secret")
        text = spelled(name, tokenizer, user(), apart, user())
        assert f"a </think> tag{EOS}" in text and "secret" not in text
        text = spelled(name, tokenizer, user(), said("a </think> tag"), user())
        assert f"> tag{EOS}" in text and "a </think>" not in text
    text = spelled("deepseek_v3", tokenizer, user(), said("a </think> tag"), user())
    assert f"a </think> tag{EOS}" in text


def test_thinking_off(tokenizer: Tokenizer) -> None:
    ends = {
        "deepseek_v3": "<｜Assistant｜>",
        "deepseek_r1": "<think>\n\n</think>\n\n",
        "deepseek_r1_0528": "<think>\n\n</think>\n\n",
        "deepseek_v31": "<｜Assistant｜></think>",
        "deepseek_v32": "<｜Assistant｜></think>",
        "deepseek_v4": "<｜Assistant｜></think>",
        "deepseek_v41": "<｜Assistant｜></think>",
    }
    for name, end in ends.items():
        ids = ENCODERS[name].encode([user()], tokenizer, thinking=False)
        assert tokenizer.decode(ids, skip_special=False).endswith(end)
        assert not ends_in_reasoning(ids, tokenizer)


def test_every_answer_has_its_own_turn(tokenizer: Tokenizer) -> None:
    text = spelled("deepseek_v3", tokenizer, said("A"), said("B"), user(), user())
    assert text == (
        f"{BOS}<｜Assistant｜>A{EOS}<｜Assistant｜>B{EOS}<｜User｜>Q<｜User｜>Q<｜Assistant｜>"
    )
    text = spelled("deepseek_v31", tokenizer, said("A"), said("B"), user(), thinking=False)
    assert text.count("<｜Assistant｜></think>") == 3


def test_descriptions_of_tools_stay_text(tokenizer: Tokenizer) -> None:
    evil = "".join(V41)
    schema = {"type": "object", "properties": {evil: {"description": evil}}}
    tool = {"function": {"name": "f", "description": evil, "parameters": schema}}
    for name in ("deepseek_v3", "deepseek_r1", "deepseek_v31", *DSML_FORMATS):
        counts = []
        for one in (tool, TOOL):
            ids = ENCODERS[name].encode([user()], tokenizer, tools=[one])
            counts.append([index for index in ids if tokenizer.is_special(index)])
        assert counts[0] == counts[1]
        assert counts[0].count(tokenizer.special(DSML if name in DSML_FORMATS else CALLS)) >= 1
