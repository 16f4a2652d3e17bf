"""Thought and answer come apart the same way however the stream is cut, by each format's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.prompt import encoder
from ingle.prompt.encoder import ASSISTANT, CALL, CALLS, END_THINK, SEP, THINK
from ingle.prompt.parser import reply_parser
from tests.prompt.parsing import WITH_DSML, Parsed, as_tokens, feed, in_pieces, opened
from tests.prompt.vocabulary import ENDS, ROLES, THOUGHT, byte_tokenizer

R1_RULES = ("deepseek_llm", "deepseek_coder", "deepseek_v3", "deepseek_r1", "deepseek_r1_0528")
V4_RULES = ("deepseek_v4", "deepseek_v41")
NAMES = (*R1_RULES, "deepseek_v31", "deepseek_v32", *V4_RULES)
DISTILL = byte_tokenizer((*ENDS, *ROLES, *THOUGHT))


def parse(name: str, text: str, thinking: bool | None = True, cuts: tuple[int, ...] = ()) -> Parsed:
    parser = reply_parser(name, WITH_DSML, opened(WITH_DSML, thinking))
    return feed(parser, in_pieces(text, WITH_DSML, cuts))


@pytest.mark.parametrize("name", R1_RULES)
@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("a\nb\n</think>\n\nanswer\n", "a\nb", "answer\n"),
        ("\na</think>\n\n\nanswer", "a", "\nanswer"),
        ("</think>\n\nanswer", "", "answer"),
        ("\n</think>x", "", "x"),
        ("never closed\n", "never closed\n", ""),
        ("a</think>b</think>c", "a", "bc"),
        ("a</think>b<think>\nc\n</think>\n\nd", "ac", "bd"),
        ("<think>a<think>b</think>c", "ab", "c"),
        ("a\n\n</think>", "a\n", ""),
        ("", "", ""),
    ],
)
def test_r1_drops_the_newlines_of_its_format(
    name: str, text: str, reasoning: str, content: str
) -> None:
    assert parse(name, text) == Parsed(reasoning, content)
    assert parse(name, text, cuts=(1,)) == Parsed(reasoning, content)


@pytest.mark.parametrize("name", ("deepseek_v31", "deepseek_v32"))
def test_v31_and_v32_drop_nothing(name: str) -> None:
    assert parse(name, "\na\n\n</think>\n\n\nb\n\n\n") == Parsed("\na\n\n", "\n\n\nb\n\n\n")
    assert parse(name, "\n\nb\n", thinking=False) == Parsed("", "\n\nb\n")


@pytest.mark.parametrize("name", V4_RULES)
def test_v4_drops_newlines_round_a_thought(name: str) -> None:
    assert parse(name, "\n\n\na\nb\n\n\n</think>\n\n\nc\n\n") == Parsed("a\nb", "c\n\n")
    assert parse(name, "\n\nc\n", thinking=False) == Parsed("", "c\n")
    assert parse(name, "a\n\n") == Parsed("a\n\n", "")


@pytest.mark.parametrize("name", NAMES)
def test_the_prompt_says_where_a_reply_starts(name: str) -> None:
    assert parse(name, "a", thinking=True) == Parsed("a")
    assert parse(name, "a", thinking=False) == Parsed("", "a")
    assert parse(name, "\n\na", thinking=None) == Parsed("", "\n\na")
    assert parse(name, "<think>a</think>b", thinking=None) == Parsed("a", "b")
    assert reply_parser(name, WITH_DSML, []).kind == "content"


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_that_begins_the_text_keeps_its_newlines(name: str) -> None:
    begun = [*opened(WITH_DSML, True), *WITH_DSML.encode("so")]
    assert feed(reply_parser(name, WITH_DSML, begun), [(99, "\n\na")]) == Parsed("\n\na")
    begun = [*opened(WITH_DSML, False), *WITH_DSML.encode("so")]
    assert feed(reply_parser(name, WITH_DSML, begun), [(99, "\n\na")]) == Parsed("", "\n\na")
    line = [*opened(WITH_DSML, True), *WITH_DSML.encode("\n")]  # as R1's prompts end
    dropped = {"deepseek_v31": 0, "deepseek_v32": 0, "deepseek_v4": 2, "deepseek_v41": 2}.get(
        name, 1
    )
    expected = Parsed("\n\na"[dropped:])
    assert feed(reply_parser(name, WITH_DSML, line), [(99, "\n\na")]) == expected


@pytest.mark.parametrize("name", NAMES)
def test_tags_spelled_in_text_are_text(name: str) -> None:
    pushes = [(99, "</think>"), (99, " <think>")]
    parser = reply_parser(name, WITH_DSML, opened(WITH_DSML, True))
    assert feed(parser, pushes) == Parsed("</think> <think>")


@pytest.mark.parametrize("name", NAMES)
def test_other_special_tokens_show_nothing(name: str) -> None:
    text = f"a{ASSISTANT}b{SEP}c{END_THINK}d{encoder.EOS}"
    assert parse(name, text) == Parsed("abc", "d")


@pytest.mark.parametrize("name", NAMES)
def test_kind_is_the_field_of_the_next_token(name: str) -> None:
    parser = reply_parser(name, WITH_DSML, opened(WITH_DSML, None))
    seen = []
    for token, text in in_pieces("x<think>a\n</think>\n", WITH_DSML, (1,)):
        seen.append(parser.kind)
        parser.push(token, text)
    assert seen == ["content"] * 2 + ["reasoning"] * 3 + ["content"]


@pytest.mark.parametrize("name", NAMES)
def test_a_vocabulary_without_tags_is_all_content(name: str) -> None:
    bare = byte_tokenizer((*ENDS, *ROLES))
    parser = reply_parser(name, bare, [bare.special(ASSISTANT)])
    assert feed(parser, in_pieces("a<b", bare, (1,))) == Parsed("", "a<b")


def test_a_distilled_model_has_thoughts_and_no_calls() -> None:
    parser = reply_parser("deepseek_r1", DISTILL, opened(DISTILL, True))
    text = "a</think>\n\n<｜tool▁calls▁begin｜>"
    assert feed(parser, as_tokens(text, DISTILL)) == Parsed("a", "<｜tool▁calls▁begin｜>")


pieces = st.lists(
    st.one_of(st.sampled_from([THINK, END_THINK]), st.text("ab\n", min_size=1, max_size=6)),
    max_size=8,
)


@given(st.sampled_from(NAMES), pieces, st.sampled_from([True, False, None]))
def test_every_cut_gives_the_one_shot_split(
    name: str, written: list[str], thinking: bool | None
) -> None:
    text = "".join(written)
    assert parse(name, text, thinking, cuts=(1,)) == parse(name, text, thinking)


@given(st.sampled_from(NAMES), pieces, st.sampled_from([True, False, None]))
def test_nothing_but_newlines_is_lost(name: str, written: list[str], thinking: bool | None) -> None:
    parsed = parse(name, "".join(written), thinking)
    kept = parsed.reasoning + parsed.content
    text = "".join(part for part in written if not part.startswith("<"))
    assert sorted(kept.replace("\n", "")) == sorted(text.replace("\n", ""))
    assert len(kept) <= len(text)


def test_without_tools_in_the_request_nothing_is_a_call():
    for name in ("deepseek_v31", "deepseek_v4"):
        prompt = opened(WITH_DSML, False)
        parser = reply_parser(name, WITH_DSML, prompt, calls=False)
        deltas = parser.push(99, "<tool> {}") + parser.finish()
        assert [delta.kind for delta in deltas] == ["content"]
        assert parser.kind == "content"
        for tag in (CALLS, CALL):
            if (token := WITH_DSML.find_special(tag)) is not None:
                parser.push(token, "")
        assert parser.kind == "content"
