"""Where each message starts in the tokens, and that knowing it changes none of them."""

from __future__ import annotations

from typing import Any

import pytest

from ingle.prompt.encoder import TOOLS_START, Prompt
from ingle.prompt.select import ENCODERS
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.tokenizer import build_tokenizer
from tests.prompt.conversations import Conversations
from tests.prompt.vocabulary import V41, byte_tokenizer

TEXT_ROLES = ("deepseek_llm", "deepseek_coder")


def numbered(request: dict[str, Any]) -> dict[str, Any]:
    """The same roles, each message with a text that occurs once."""
    messages = [
        {**message, "content": f"[{index}]"} for index, message in enumerate(request["messages"])
    ]
    return {**request, "messages": messages}


@pytest.mark.parametrize("name", ENCODERS)
def test_every_message_starts_where_its_text_does(name: str) -> None:
    tokenizer, source = byte_tokenizer(V41), Conversations(seed=3, reminders=False)
    marked = 0
    for _ in range(60):
        request = source.request()
        if name in TEXT_ROLES:
            request.pop("tools", None)
            request["messages"] = [m for m in request["messages"] if m["role"] != "tool"]
            for message in request["messages"]:
                message.pop("tool_calls", None)
                message.pop("prefix", None)
            request["messages"].append({"role": "user"})
        request = numbered(request)
        messages = request.pop("messages")
        ids, starts = ENCODERS[name].encode_marked(messages, tokenizer, **request)
        assert ids == ENCODERS[name].encode(messages, tokenizer, **request)
        assert [place for place, _ in starts] == sorted(place for place, _ in starts)
        found = [index for _, index in starts if index != TOOLS_START]
        assert sorted(found) == list(range(len(messages)))
        assert ("tools" in request) == any(index == TOOLS_START for _, index in starts)
        ends = [place for place, _ in starts[1:]] + [len(ids)]
        for (place, index), end in zip(starts, ends, strict=True):
            text = tokenizer.decode(ids[place:end], skip_special=False)
            if index == TOOLS_START:
                assert "# Tools" in text and "[" + str(len(messages) - 1) not in text
            else:
                assert f"[{index}]" in text and f"[{index - 1}]" not in text
            marked += 1
    assert marked > 300


def test_messages_that_are_not_written_have_no_start() -> None:
    def said(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    messages = [said("system", ""), said("user", "Q"), said("user", ""), said("user", "R")]
    tokenizer = byte_tokenizer(V41)
    for name, expected in (("deepseek_v4", [1, 3]), ("deepseek_v41", [1, 2, 3])):
        _, starts = ENCODERS[name].encode_marked(messages, tokenizer)
        assert [index for _, index in starts] == expected


@pytest.fixture(scope="module")
def merging(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("shipped")
    build_tokenizer(folder)
    return Tokenizer.load(folder)


def test_marks_inside_a_text_do_not_cut_its_tokens(merging: Tokenizer) -> None:
    words = ["What", " is", " the sum", " of 4", "7?", "\n", "\nnaïve 你", "\ud800", "好", "", "x"]
    prompt = Prompt(merging)
    for index, word in enumerate(words):
        prompt.mark(index)
        prompt.text(word)
    prompt.mark(len(words))
    ids, text = merging.encode("".join(words)), ""
    assert prompt.ids() == ids
    starts = dict((index, place) for place, index in prompt.starts())
    assert starts[len(words)] == len(ids)
    for index, word in enumerate(words):
        place = starts[index]
        before, here = (b"".join(map(merging.token_bytes, ids[:end])) for end in (place, place + 1))
        start = len(merging.decode(merging.encode(text)).encode())
        assert len(before) <= start < len(here) or (not word and len(before) <= start)
        text += word


def test_many_short_messages_are_marked_in_linear_time(merging: Tokenizer) -> None:
    messages = [{"role": "system", "content": f"rule {i}"} for i in range(20_000)]
    messages.append({"role": "user", "content": "Q"})
    ids, starts = ENCODERS["deepseek_r1"].encode_marked(messages, merging)
    assert len(starts) == len(messages) and len(ids) > 40_000
