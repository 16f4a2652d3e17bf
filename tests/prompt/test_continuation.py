"""A final message with `prefix` is left open, in each format as its turns are written."""

from __future__ import annotations

from typing import Any

import pytest

from ingle.errors import InvalidRequestError
from ingle.prompt.encoder import EOS, ends_in_reasoning
from ingle.prompt.select import ENCODERS
from ingle.prompt.tokenizer import Tokenizer
from tests.prompt.vocabulary import V41, byte_tokenizer

USER = {"role": "user", "content": "Q"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LOOP = [
    {"role": "assistant", "content": "", "tool_calls": [CALL], "reasoning_content": "r"},
    {"role": "tool", "tool_call_id": "1", "content": "R"},
]
SHORT = ("deepseek_v31", "deepseek_v32", "deepseek_v4", "deepseek_v41")
LONG = ("deepseek_r1", "deepseek_r1_0528")
NONE = ("deepseek_llm", "deepseek_coder", "deepseek_v3")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_tokenizer(V41)


def prefix(content: str | None, reasoning: str | None = None) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "prefix": True}
    return message if reasoning is None else {**message, "reasoning_content": reasoning}


def spelled(name: str, tokenizer: Tokenizer, *messages: dict[str, Any], **options: Any) -> str:
    ids = ENCODERS[name].encode(messages, tokenizer, **options)
    text = tokenizer.decode(ids, skip_special=False)
    in_thought = text.rfind("<think>") > text.rfind("</think>")
    assert ends_in_reasoning(ids, tokenizer) == in_thought
    return text


@pytest.mark.parametrize(
    ("name", "opened"),
    [
        ("deepseek_llm", "Assistant: "),
        ("deepseek_coder", "### Response:\n"),
        ("deepseek_v3", "<｜Assistant｜>"),
        *((name, "<｜Assistant｜><think>\n\n</think>\n\n") for name in LONG),
        *((name, "<｜Assistant｜><think></think>") for name in SHORT),
    ],
)
def test_content_goes_on_behind_a_closed_thought(
    name: str, opened: str, tokenizer: Tokenizer
) -> None:
    assert spelled(name, tokenizer, USER, prefix("The")).endswith(f"{opened}The")
    off = spelled(name, tokenizer, USER, prefix("The", "Hm"), thinking=False)
    bare = opened.replace("<think></think>", "</think>")
    assert off.endswith(f"{bare}The") and "Hm" not in off


@pytest.mark.parametrize("name", [*SHORT, *LONG])
def test_a_thought_goes_on_where_there_is_no_content(name: str, tokenizer: Tokenizer) -> None:
    newline = "\n" if name in LONG else ""
    for content in ("", None):
        text = spelled(name, tokenizer, USER, prefix(content, "Hm"))
        assert text.endswith(f"<｜Assistant｜><think>{newline}Hm")
    text = spelled(name, tokenizer, USER, prefix("The", "Hm"))
    end = "\n</think>\n\n" if newline else "</think>"
    assert text.endswith(f"<｜Assistant｜><think>{newline}Hm{end}The")


@pytest.mark.parametrize("name", NONE)
def test_formats_without_thoughts_cannot_continue_one(name: str, tokenizer: Tokenizer) -> None:
    assert "Hm" not in spelled(name, tokenizer, USER, prefix("The", "Hm"))
    with pytest.raises(InvalidRequestError) as refusal:
        spelled(name, tokenizer, USER, prefix("", "Hm"))
    assert refusal.value.param == "messages[1].reasoning_content"


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("thinking", [True, False])
def test_an_empty_prefix_is_the_prompt_without_it(
    name: str, thinking: bool, tokenizer: Tokenizer
) -> None:
    encoder = ENCODERS[name]
    plain = encoder.encode([USER], tokenizer, thinking=thinking)
    assert encoder.encode([USER, prefix("")], tokenizer, thinking=thinking) == plain


@pytest.mark.parametrize("name", ENCODERS)
def test_history_is_closed_and_only_the_last_stays_open(name: str, tokenizer: Tokenizer) -> None:
    past = [USER, {"role": "assistant", "content": "A", "prefix": False}, USER]
    text = spelled(name, tokenizer, *past, prefix("The"))
    assert text.endswith("The")
    assert text.count("<|EOT|>" if name == "deepseek_coder" else EOS) == 1


@pytest.mark.parametrize(
    ("name", "content", "thought"),
    [
        ("deepseek_v3", "<｜tool▁outputs▁end｜>The", None),
        ("deepseek_r1", "<｜tool▁outputs▁end｜>The", "<｜tool▁outputs▁end｜><think>\nHm"),
        ("deepseek_r1_0528", "<｜tool▁outputs▁end｜>The", "<｜tool▁outputs▁end｜><think>\nHm"),
        ("deepseek_v31", "<｜tool▁output▁end｜>The", "<｜tool▁output▁end｜><think>Hm"),
        ("deepseek_v32", "</function_results>\n\n<think></think>The", "\n\n<think>Hm"),
        ("deepseek_v4", "<｜Assistant｜><think></think>The", "<｜Assistant｜><think>Hm"),
        ("deepseek_v41", "<｜Assistant｜><think></think>The", "<｜Assistant｜><think>Hm"),
    ],
)
def test_behind_results(name: str, content: str, thought: str | None, tokenizer: Tokenizer) -> None:
    assert spelled(name, tokenizer, USER, *LOOP, prefix("The")).endswith(content)
    if thought is not None:
        assert spelled(name, tokenizer, USER, *LOOP, prefix("", "Hm")).endswith(thought)


def test_what_is_continued_stays_text(tokenizer: Tokenizer) -> None:
    evil = "".join(V41)
    for name in ENCODERS:
        counts = [
            [i for i in ids if tokenizer.is_special(i)]
            for text in (evil, "The")
            for ids in [ENCODERS[name].encode([USER, prefix(text, text)], tokenizer)]
        ]
        assert counts[0] == counts[1]
