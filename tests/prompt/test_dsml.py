"""V3.2, V4 and V4.1: the texts of the format, efforts, and the listed differences of V3.2."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from ingle.errors import ConfigError, InvalidRequestError
from ingle.prompt.deepseek_v4 import EFFORT_TEXTS
from ingle.prompt.dsml import V4_TAGS, V41_TAGS, tools_text
from ingle.prompt.encoder import BOS, DSML, EOS, JSON_OBJECT
from ingle.prompt.select import ENCODERS
from ingle.prompt.tokenizer import Tokenizer
from tests.prompt.vocabulary import SPECIALS, V41, byte_tokenizer

SCHEMAS = "### Available Tool Schemas\n\n"
TOOL = {"type": "function", "function": {"name": "f"}}
USER = {"role": "user", "content": "Q"}
SYSTEM = {"role": "system", "content": "S"}
ANSWER = {"role": "assistant", "content": "A", "reasoning_content": "R"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"k": "v"}'}}
LOOP = [
    {"role": "assistant", "content": "", "tool_calls": [CALL], "reasoning": "R"},
    {"role": "tool", "tool_call_id": "1", "content": "T"},
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_tokenizer(V41)


def spelled(name: str, tokenizer: Tokenizer, *messages: dict[str, Any], **options: Any) -> str:
    ids = ENCODERS[name].encode(messages, tokenizer, **options)
    return tokenizer.decode(ids, skip_special=False)


@pytest.mark.parametrize(
    ("text", "characters", "digest"),
    [
        (EFFORT_TEXTS["high"], 476, "f7a24f3b3050d4a8"),
        (EFFORT_TEXTS["max"], 526, "53fb31b8392ec5b4"),
        (tools_text(V4_TAGS).removesuffix(SCHEMAS), 826, "69775c1a85264b6b"),
        (tools_text(V41_TAGS).removesuffix(SCHEMAS), 820, "22134fee0d969936"),
    ],
)
def test_texts_of_the_format_are_deepseeks(text: str, characters: int, digest: str) -> None:
    assert len(text) == characters
    assert hashlib.sha256(text.encode()).hexdigest().startswith(digest)


@pytest.mark.parametrize(
    ("effort", "number", "v4"),
    [
        (None, 75, "high"),
        ("minimal", 50, "low"),
        ("low", 50, "low"),
        ("medium", 75, "high"),
        ("xhigh", 75, "high"),
        ("max", 100, "max"),
        ("ultra", 100, "max"),
        (1, 1, None),
        (100, 100, None),
    ],
)
def test_efforts(
    effort: str | int | None, number: int, v4: str | None, tokenizer: Tokenizer
) -> None:
    text = spelled("deepseek_v41", tokenizer, SYSTEM, USER, effort=effort)
    assert text.startswith(f"{BOS}<｜System｜>Reasoning Effort: {number} (range 1-100, ")
    if v4 is not None:
        text = spelled("deepseek_v4", tokenizer, SYSTEM, USER, effort=effort)
        assert text.startswith(f"{BOS}{EFFORT_TEXTS[v4]}S<｜User｜>")
    else:
        with pytest.raises(InvalidRequestError):
            spelled("deepseek_v4", tokenizer, USER, effort=effort)


@pytest.mark.parametrize("effort", ["", "none", "HIGH", 0, 101, True])
def test_unknown_efforts_are_refused_where_there_are_efforts(
    effort: str | int, tokenizer: Tokenizer
) -> None:
    for name in ENCODERS:
        if name not in ("deepseek_v4", "deepseek_v41"):
            assert spelled(name, tokenizer, USER, effort=effort)
            continue
        for thinking in (True, False):
            with pytest.raises(InvalidRequestError) as refusal:
                spelled(name, tokenizer, USER, effort=effort, thinking=thinking)
            assert refusal.value.param == "reasoning_effort"


def test_a_schema_is_written_where_the_format_has_words_for_it(tokenizer: Tokenizer) -> None:
    for name in ENCODERS:
        texts = [
            spelled(name, tokenizer, SYSTEM, USER, response_schema=schema)
            for schema in (None, {"type": "object"}, JSON_OBJECT)
        ]
        written = name in ("deepseek_v32", "deepseek_v4", "deepseek_v41")
        assert ('\n{"type": "object"}<｜User｜>' in texts[1]) == written
        assert len(set(texts)) == (3 if written else 1)


def test_only_v32_may_lack_the_token_of_the_markup(tokenizer: Tokenizer) -> None:
    bare = byte_tokenizer(SPECIALS)
    request = (USER, *LOOP)
    for options in ({}, {"tools": [TOOL]}):
        expected = spelled("deepseek_v32", tokenizer, *request, **options)
        assert spelled("deepseek_v32", bare, *request, **options) == expected
        assert DSML in expected
    for messages, options in ((request, {}), ((USER,), {"tools": [TOOL]})):
        with pytest.raises(ConfigError, match="｜DSML｜"):
            spelled("deepseek_v4", bare, *messages, **options)
    assert spelled("deepseek_v4", bare, USER)


def test_v32_keeps_reasoning_behind_the_last_user_message(tokenizer: Tokenizer) -> None:
    text = spelled("deepseek_v32", tokenizer, USER, *LOOP, ANSWER, USER, *LOOP)
    first, second = text.split("<｜User｜>")[1:]
    assert first.startswith("Q<｜Assistant｜></think>\n\n<｜DSML｜function_calls>")
    assert first.endswith(f"</function_results>\n\n</think>A{EOS}")
    assert second.startswith("Q<｜Assistant｜><think>R</think>\n\n<｜DSML｜function_calls>")
    assert second.endswith("<result>T</result>\n</function_results>\n\n<think>")
    assert "<think>" not in spelled("deepseek_v32", tokenizer, USER, *LOOP, thinking=False)


def test_v32_never_writes_a_system_text_into_a_thought(tokenizer: Tokenizer) -> None:
    assert spelled("deepseek_v32", tokenizer, USER, SYSTEM).endswith("QS<｜Assistant｜><think>")
    text = spelled("deepseek_v32", tokenizer, USER, *LOOP, SYSTEM)
    assert text.endswith("</function_results>\n\nS<think>")
    text = spelled("deepseek_v32", tokenizer, USER, ANSWER, SYSTEM, USER)
    assert f"A{EOS}S<｜User｜>Q" in text


def test_v32_gives_every_answer_a_turn(tokenizer: Tokenizer) -> None:
    bare = {"role": "assistant", "content": "B"}
    text = spelled("deepseek_v32", tokenizer, bare, ANSWER, USER, ANSWER, bare, SYSTEM)
    assert text == (
        f"{BOS}<｜Assistant｜></think>B{EOS}<｜Assistant｜></think>A{EOS}"
        f"<｜User｜>Q<｜Assistant｜><think>R</think>A{EOS}<｜Assistant｜><think></think>B{EOS}"
        "S<｜Assistant｜><think>"
    )


def test_v32_writes_arguments_that_are_no_object_as_text(tokenizer: Tokenizer) -> None:
    call = {**CALL, "function": {"name": "f", "arguments": "[1]"}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    text = spelled("deepseek_v32", tokenizer, USER, asked, LOOP[1])
    assert '<｜DSML｜parameter name="arguments" string="true">[1]</｜DSML｜parameter>' in text
