"""The split of thought and answer is the same however the stream is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.prompt.parser import ThinkingParser

OPEN, CLOSE, TEXT = 1, 2, 3


class Tags:
    """All the parser needs of a tokenizer."""

    def find_special(self, name: str) -> int | None:
        return {"<think>": OPEN, "</think>": CLOSE}.get(name)


class NoTags:
    def find_special(self, name: str) -> None:
        return None


def parse(
    tokens: list[tuple[int, str]], starts: bool = True, tags: object = None
) -> tuple[str, str]:
    parser = ThinkingParser(tags or Tags(), starts_in_reasoning=starts)
    deltas = [delta for token, text in tokens for delta in parser.push(token, text)]
    deltas += parser.finish()
    assert all(delta.text for delta in deltas)
    return tuple(
        "".join(d.text for d in deltas if d.kind == kind) for kind in ("reasoning", "content")
    )


def spelled(*parts: str | int) -> list[tuple[int, str]]:
    return [(part, "") if isinstance(part, int) else (TEXT, part) for part in parts]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["a\nb\n", CLOSE, "\n\nanswer\n"], ("a\nb", "answer\n")),
        (["\na", CLOSE, "\n", "\n", "\nanswer"], ("a", "\nanswer")),
        ([CLOSE, "\n\nanswer"], ("", "answer")),
        (["\n", CLOSE, "x"], ("", "x")),
        (["never closed\n"], ("never closed\n", "")),
        (["a", CLOSE, "b", CLOSE, "c"], ("a", "bc")),
        (["a", CLOSE, "b", OPEN, "\nc\n", CLOSE, "\n\nd"], ("ac", "bd")),
        ([OPEN, "a", OPEN, "b", CLOSE, "c"], ("ab", "c")),
        (["</think>", " as text"], ("</think> as text", "")),
        (["a\n\n", CLOSE], ("a\n", "")),
        ([], ("", "")),
    ],
)
def test_examples(parts, expected):
    assert parse(spelled(*parts)) == expected


def test_content_first():
    assert parse(spelled("\n\nplain"), starts=False) == ("", "\n\nplain")
    assert parse(spelled(OPEN, "\na\n", CLOSE, "\n\nb"), starts=False) == ("a", "b")


def test_vocabulary_without_tags_is_all_content():
    assert parse(spelled("a", "b"), starts=True, tags=NoTags()) == ("", "ab")


pieces = st.lists(
    st.one_of(st.sampled_from([OPEN, CLOSE]), st.text("ab\n", min_size=1, max_size=6)), max_size=8
)


@given(pieces, st.booleans())
def test_every_cut_gives_the_one_shot_split(parts, starts):
    one_shot = parse(spelled(*parts), starts)
    single = [p for part in parts for p in ([part] if isinstance(part, int) else part)]
    assert parse(spelled(*single), starts) == one_shot


@given(pieces, st.booleans())
def test_nothing_but_newlines_is_lost(parts, starts):
    reasoning, content = parse(spelled(*parts), starts)
    text = "".join(part for part in parts if isinstance(part, str))
    kept = (reasoning + content).replace("\n", "")
    assert sorted(kept) == sorted(text.replace("\n", ""))
    assert len(reasoning + content) <= len(text)
