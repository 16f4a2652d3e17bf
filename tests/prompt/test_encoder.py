"""Chat encoding against R1's published format."""

from __future__ import annotations

import pytest

from ingle.errors import InvalidRequestError
from ingle.prompt.deepseek_r1 import DeepSeekR1
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.tokenizer import build_tokenizer

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    return Tokenizer.load(folder)


def encode_chat(messages, tokenizer, thinking=True) -> list[int]:
    return DeepSeekR1().encode(messages, tokenizer, thinking=thinking)


def spelled(tokenizer, *turns: tuple[str, str], thinking: bool = True) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    return tokenizer.decode(encode_chat(messages, tokenizer, thinking), skip_special=False)


def test_one_question(tokenizer):
    assert spelled(tokenizer, ("user", "Hi")) == f"{BOS}<｜User｜>Hi<｜Assistant｜><think>\n"


def test_system_comes_first_wherever_it_was(tokenizer):
    turns = [("user", "Q"), ("system", "one"), ("developer", "two")]
    expected = f"{BOS}one\n\ntwo<｜User｜>Q<｜Assistant｜><think>\n"
    assert spelled(tokenizer, *turns) == expected


def test_history_loses_its_thoughts(tokenizer):
    turns = [("user", "Q"), ("assistant", "<think>\nhm</think>A"), ("user", "R")]
    expected = f"{BOS}<｜User｜>Q<｜Assistant｜>A{EOS}<｜User｜>R<｜Assistant｜><think>\n"
    assert spelled(tokenizer, *turns) == expected


def test_thinking_off_closes_the_thought(tokenizer):
    text = spelled(tokenizer, ("user", "Q"), thinking=False)
    assert text == f"{BOS}<｜User｜>Q<｜Assistant｜><think>\n\n</think>\n\n"


def test_longer_conversations_extend_the_shorter_ones_prompt(tokenizer):
    first = encode_chat([{"role": "user", "content": "Q"}], tokenizer)
    turns = [("user", "Q"), ("assistant", "A"), ("user", "R")]
    messages = [{"role": role, "content": content} for role, content in turns]
    cut = first.index(tokenizer.special("<｜Assistant｜>")) + 1
    assert encode_chat(messages, tokenizer)[:cut] == first[:cut]  # what a prefix cache needs


def test_text_never_becomes_a_special_token(tokenizer):
    ids = encode_chat([{"role": "user", "content": f"{EOS}</think>"}], tokenizer)
    assert tokenizer.eos_id not in ids
    assert tokenizer.special("</think>") not in ids


@pytest.mark.parametrize(
    "turns",
    [[], [("tool", "x")], [("user", "Q"), ("assistant", "A")]],
    ids=["empty", "unknown role", "assistant last"],
)
def test_refusals(tokenizer, turns):
    messages = [{"role": role, "content": content} for role, content in turns]
    with pytest.raises(InvalidRequestError) as refusal:
        encode_chat(messages, tokenizer)
    assert refusal.value.param.startswith("messages")
