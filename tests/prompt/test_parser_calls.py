"""Tool calls of every generation: golden replies, however they are cut and wherever they end."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingle.prompt import encoder
from ingle.prompt.detokenize import Detokenizer
from ingle.prompt.encoder import CALL, CALLS, END_CALL, END_CALLS, END_THINK, EOS, SEP, THINK
from ingle.prompt.parser import ReplyParser, reply_parser
from ingle.prompt.select import ENCODERS
from ingle.prompt.tokenizer import Tokenizer
from tests.prompt.parsing import (
    DSML,
    WITH_DSML,
    WITHOUT_DSML,
    Parsed,
    Push,
    as_tokens,
    feed,
    in_pieces,
    opened,
    parts,
)
from tests.prompt.vocabulary import SPECIALS

FENCED = ("deepseek_v3", "deepseek_r1", "deepseek_r1_0528")
PLAIN_DSML = "deepseek_v32"
TOKEN_DSML = ("deepseek_v4", "deepseek_v41")
NAMES = (*FENCED, "deepseek_v31", PLAIN_DSML, *TOKEN_DSML)

Arguments = list[tuple[str, object]]
NESTED = {"a": [1, {"b": "}<]"}, None], "ü": {"€": "👩‍🚀"}}
WEATHER: Arguments = [("city", "Köln\n「東京」"), ("days", 2)]
VALUES: Arguments = [
    ("text", 'a "quoted" \\ line\n\tand </tag> & <b'),
    ("nested", NESTED),
    ("flag", True),
    ("none", None),
    ("code", "``` `\n``` x"),
]


def block(name: str, calls: list[tuple[str, Arguments]]) -> str:
    """A block of calls as the generation writes it, with the whitespace that stands before."""
    if name in FENCED or name == "deepseek_v31":
        between = "\n" if name in FENCED else ""
        written = [
            f"{CALL}function{SEP}{function}\n```json\n{to_json(arguments)}\n```{END_CALL}"
            if name in FENCED
            else f"{CALL}{function}{SEP}{to_json(arguments)}{END_CALL}"
            for function, arguments in calls
        ]
        return f"{CALLS}{between.join(written)}{END_CALLS}"
    blank, tag = ("", {PLAIN_DSML: "function_calls"}.get(name, "tool_calls"))
    if name == "deepseek_v41":
        blank, tag = " ", "calls"
    lines = []
    for function, arguments in calls:
        lines.append(f'<{DSML}{blank}invoke name="{function}">')
        for key, value in arguments:
            is_text = isinstance(value, str)
            shown = value if is_text else json.dumps(value, ensure_ascii=False)
            lines.append(
                f'<{DSML}{blank}parameter name="{key}" string="{str(is_text).lower()}">'
                f"{shown}</{DSML}{blank}parameter>"
            )
        lines.append(f"</{DSML}{blank}invoke>")
    joined = "\n".join(lines)
    return f"\n\n<{DSML}{blank}{tag}>\n{joined}\n</{DSML}{blank}{tag}>"


def to_json(arguments: Arguments) -> str:
    return json.dumps(dict(arguments), ensure_ascii=False)


def as_parsed(*calls: tuple[str, Arguments]) -> list[list[str]]:
    return [[name, to_json(arguments)] for name, arguments in calls]


def golden(name: str) -> list[tuple[str, Parsed]]:
    """Replies in an open thought and what they are."""
    no_calls = [
        ("a</think>Sure.", Parsed("a", "Sure.")),
        ("Straße 東京 👩‍🚀</think>«é» <b>1 < 2</b> \n x", None),
        ("a thought without an end", Parsed("a thought without an end")),
    ]
    rows: list[tuple[str, Parsed]] = []
    for text, expected in no_calls:
        if expected is None:
            reasoning, content = text.split(END_THINK)
            expected = Parsed(reasoning, content)
        rows.append((text, expected))
    blocks: list[list[tuple[str, Arguments]]] = [
        [("get_weather", WEATHER)],
        [("now", [])],
        [("now", []), ("get-Weather_2", WEATHER), ("now", [])],
        [("save", VALUES)],
    ]
    for calls in blocks:
        text = block(name, calls)
        rows += [
            (f"{END_THINK}{text}", Parsed("", "", as_parsed(*calls))),
            (f"I call.{END_THINK}{text}{EOS}", Parsed("I call.", "", as_parsed(*calls))),
            (f"so{END_THINK}Let me see:{text}", Parsed("so", "Let me see:", as_parsed(*calls))),
            (f"not closed{text}", Parsed("not closed", "", as_parsed(*calls))),
            (f"a{END_THINK}b{text}\n\nand more", Parsed("a", "b", as_parsed(*calls))),
        ]
    return rows


GOLDEN = [(name, text, parsed) for name in NAMES for text, parsed in golden(name)]
IDS = [f"{name}-{index}" for index, (name, _, _) in enumerate(GOLDEN)]


def vocabulary(name: str) -> Tokenizer:
    return WITHOUT_DSML if name == PLAIN_DSML else WITH_DSML


def parser_of(name: str, thinking: bool | None = True) -> ReplyParser:
    tokenizer = vocabulary(name)
    return reply_parser(name, tokenizer, opened(tokenizer, thinking))


@pytest.mark.parametrize(("name", "text", "expected"), GOLDEN, ids=IDS)
def test_golden_replies_in_any_cut(name: str, text: str, expected: Parsed) -> None:
    tokenizer = vocabulary(name)
    whole, single = in_pieces(text, tokenizer), in_pieces(text, tokenizer, (1,))
    assert feed(parser_of(name), whole) == expected
    assert feed(parser_of(name), single) == expected
    assert feed(parser_of(name), as_tokens(text, tokenizer)) == expected  # byte by byte
    for cuts in ((2,), (3, 1), (7,), (1, 20), (13, 2, 5)):
        assert feed(parser_of(name), in_pieces(text, tokenizer, cuts)) == expected
    for call in expected.calls:
        json.loads(call[1])


@pytest.mark.parametrize(("name", "text", "expected"), GOLDEN, ids=IDS)
def test_a_reply_cut_off_anywhere_is_the_beginning_of_the_whole(
    name: str, text: str, expected: Parsed
) -> None:
    """While it streams not a letter too many; at its end what was held back as text, if any."""
    pushes = in_pieces(text, vocabulary(name), (1,))
    streaming, streamed = parser_of(name), Parsed()
    for index, (token, piece) in enumerate(pushes):
        streamed.add(streaming.push(token, piece))
        assert streamed.starts(expected)
        ended = feed(parser_of(name), joined(pushes[: index + 1]))
        for field in ("reasoning", "content"):
            held = getattr(ended, field).removeprefix(getattr(streamed, field))
            assert re.fullmatch(f"\n*(<({_beginnings(DSML)})?)?", held)
        if not ended.calls:
            continue
        last, whole = ended.calls[-1][1], expected.calls[len(ended.calls) - 1][1]
        assert whole.startswith(re.sub(f'(</?({_beginnings(DSML)})?|")$', "", last))


def joined(pushes: list[Push]) -> list[Push]:
    """The same stream with neighbouring texts in one piece, which is faster to parse."""
    fewer: list[Push] = []
    for token, text in pushes:
        if fewer and text and fewer[-1][1]:
            text = fewer.pop()[1] + text
        fewer.append((token, text))
    return fewer


def _beginnings(text: str) -> str:
    return "|".join(text[:length] for length in range(len(text), 0, -1))


@pytest.mark.parametrize("name", NAMES)
def test_text_is_held_back_no_longer_than_it_can_be_a_tag(name: str) -> None:
    parser = parser_of(name, thinking=False)
    for token, text in in_pieces("plain text, <b> & </b> ``` | ｜ x", vocabulary(name), (1,)):
        deltas = parser.push(token, text)
        assert bool(deltas) == (text not in "<" or name not in (*TOKEN_DSML, PLAIN_DSML))
    parser = parser_of(name, thinking=False)
    begun, value = block(name, [("f", [("a", "x 1 {}[],:")])]).split("x 1", 1)
    feed(parser, in_pieces(begun, vocabulary(name)), finish=False)
    for character in "x 1 {}[],:":
        assert parser.push(99, character)[0].text == character
    assert value


@pytest.mark.parametrize("name", NAMES)
def test_kind_is_call_from_the_block_on(name: str) -> None:
    parser = parser_of(name)
    feed(parser, in_pieces("a</think>b", vocabulary(name)), finish=False)
    assert parser.kind == "content"
    feed(parser, in_pieces(block(name, [("f", [])]) + "after", vocabulary(name)), finish=False)
    assert parser.kind == "call"


@pytest.mark.parametrize("name", NAMES)
def test_what_the_encoder_writes_is_read_back(name: str) -> None:
    tokenizer, calls = vocabulary(name), [("save", VALUES), ("now", [])]
    written = [
        {
            "id": function,
            "type": "function",
            "function": {"name": function, "arguments": to_json(arguments)},
        }
        for function, arguments in calls
    ]
    history: list[dict[str, object]] = [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "I see.", "reasoning_content": "R", "tool_calls": written},
        *({"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in written),
    ]
    prompt = ENCODERS[name].encode(history, tokenizer)
    begin = prompt.index(tokenizer.special(encoder.ASSISTANT)) + 1
    reply = prompt[begin : prompt.index(tokenizer.special(EOS))]
    detokenizer = Detokenizer(tokenizer)
    pushes = [(index, detokenizer.push(index)) for index in reply]
    parsed = feed(reply_parser(name, tokenizer, prompt[:begin]), pushes)
    assert parsed.reasoning in ("", "R")
    assert parsed.content == "I see."
    assert parsed.calls == as_parsed(*calls)


@pytest.mark.parametrize("name", ("deepseek_v3", "deepseek_v31"))
@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("{C}{f}a{/c}{/C}", [["f", "a"]]),  # without the tag of the block
        ("{B}{C}{f}a{C}{g}b{/C}", [["f", "a"], ["g", "b"]]),  # never closed
        ("{B}{C}{f}a{/c} \n x{C}{g}b{/c}{/C}{C}{h}c{/c}", [["f", "a"], ["g", "b"]]),
        ("{B}{C}{f}a{/c}", [["f", "a"]]),
        ("{B}{C}{f}a", [["f", "a"]]),
        ("{B}{C}{f}", [["f", ""]]),
        ("{B}{C}", []),
        ("{B}x{/C}y", []),
        ("{B}{/c}{C}{C}{f}a{/c}", [["f", "a"]]),
        ("{B}{C}{}a{/c}{C}{f}b{/c}", [["f", "b"]]),  # a call without a name
        ("{B}{C}{f}a<think>{B}b{/c}", [["f", f"a{THINK}{CALLS}b"]]),
        ("{B}{C}{f}a{EOS}", [["f", "a"]]),
        ("{/c}{/C}", []),
    ],
)
def test_malformed_calls(name: str, text: str, calls: list[list[str]]) -> None:
    named = "function{}{}\n```json\n" if name == "deepseek_v3" else "{1}{0}"
    close = f"\n```{END_CALL}" if name == "deepseek_v3" else END_CALL
    for called_name in ("f", "g", "h", ""):
        text = text.replace(f"{{{called_name}}}", named.format(SEP, called_name))
    tags = {"{B}": CALLS, "{C}": CALL, "{/c}": close, "{/C}": END_CALLS, "{EOS}": EOS}
    for short, tag in tags.items():
        text = text.replace(short, tag)
    for cuts in ((), (1,)):
        parsed = feed(parser_of(name, False), in_pieces(text, WITH_DSML, cuts))
        assert parsed.calls == calls
        assert not parsed.reasoning


@pytest.mark.parametrize(
    ("inside", "arguments"),
    [
        ("{}", "{}"),  # no fence
        ("```\n{}\n```", "```\n{}\n```"),  # another fence than the format's
        ("```json\n{}", "{}"),  # not closed
        ("```json\n{\n}\n```", "{\n}"),
        ("```json\n{}\n``", "{}\n``"),
        ("```json\n{}\n```\n```", "{}\n```"),
        ("```json\n{}\n``` ", "{}\n``` "),
        ("```js", "```js"),
        ("", ""),
    ],
)
def test_the_fence(inside: str, arguments: str) -> None:
    text = f"{CALLS}{CALL}function{SEP}f\n{inside}{END_CALL}{END_CALLS}"
    for cuts in ((), (1,), (2,)):
        parsed = feed(parser_of("deepseek_v3"), in_pieces(text, WITH_DSML, cuts))
        assert parsed.calls == [["f", arguments]]


def test_a_fence_that_ends_a_reply_is_no_argument() -> None:
    begun = f"{CALLS}{CALL}function{SEP}f\n```json\n{{}}"
    for end in ("", "\n", "\n`", "\n``", "\n```"):
        parsed = feed(parser_of("deepseek_v3"), in_pieces(begun + end, WITH_DSML, (1,)))
        assert parsed.calls == [["f", "{}"]]


def test_a_name_that_breaks_off_is_no_call() -> None:
    for name, text in (
        ("deepseek_v3", f"{CALLS}{CALL}function{SEP}get_wea"),
        ("deepseek_v31", f"{CALLS}{CALL}get_wea"),
        ("deepseek_v32", f'<{DSML}function_calls>\n<{DSML}invoke name="get_wea'),
        ("deepseek_v4", f'<{DSML}tool_calls>\n<{DSML}invoke name="get_wea'),
    ):
        assert feed(parser_of(name, False), in_pieces(text, vocabulary(name), (1,))) == Parsed()


def test_a_token_of_dsml_is_not_its_spelling() -> None:
    text = block("deepseek_v4", [("f", WEATHER)])
    parser = parser_of("deepseek_v4", thinking=None)
    assert feed(parser, [(99, character) for character in text]) == Parsed("", text)
    value = f"</{DSML}parameter>"
    begun = f'<{DSML}tool_calls>\n<{DSML}invoke name="f">\n<{DSML}parameter name="a" string="true">'
    parser = parser_of("deepseek_v4", thinking=None)
    parsed = feed(parser, [*in_pieces(begun, WITH_DSML), (99, value)])
    assert parsed.calls == [["f", f'{{"a": "{value}']]


def test_v32_drops_two_newlines_before_its_block_and_no_more() -> None:
    text = block(PLAIN_DSML, [("now", [])])
    for before, content in (
        ("", ""),
        ("a", "a"),
        ("a\n\n", "a\n\n"),
        ("\n", "\n"),
        ("a \n", "a \n"),
    ):
        parsed = feed(parser_of(PLAIN_DSML, False), in_pieces(before + text, WITHOUT_DSML, (1,)))
        assert parsed == Parsed("", content, [["now", "{}"]])
    parsed = feed(parser_of(PLAIN_DSML, False), in_pieces("a" + text[1:], WITHOUT_DSML))
    assert parsed == Parsed("", "a", [["now", "{}"]])


def test_a_parameter_may_have_any_name() -> None:
    keys = ["file path", "a\\b", 'say "hi"', "two\nlines", "", " ", "ключ"]
    arguments: Arguments = [(key, key) for key in keys]
    for name in (PLAIN_DSML, *TOKEN_DSML):
        text = block(name, [("f", arguments)])
        for cuts in ((), (1,)):
            parsed = feed(parser_of(name), in_pieces(text, vocabulary(name), cuts))
            assert parsed.calls == as_parsed(("f", arguments))


fragments = st.lists(
    st.one_of(
        st.sampled_from([*SPECIALS, DSML, f"<{DSML}", f"</{DSML}", f"</{DSML}tool_calls>"]),
        st.sampled_from(['invoke name="', 'parameter name="', '" string="true">', '"', "f\n"]),
        st.sampled_from(["```json\n", "\n```", "\n\n", "<", "</"]),
        st.text('ab \n"\\é東👩`<{', max_size=5),
    ),
    max_size=24,
)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(NAMES), fragments, st.sampled_from([True, False, None]), st.data())
def test_any_stream_is_parsed_and_no_cut_matters(
    name: str, written: list[str], thinking: bool | None, data: st.DataObject
) -> None:
    text, tokenizer = "".join(written), vocabulary(name)
    cuts = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    whole = feed(parser_of(name, thinking), in_pieces(text, tokenizer))
    assert feed(parser_of(name, thinking), in_pieces(text, tokenizer, cuts)) == whole
    assert feed(parser_of(name, thinking), as_tokens(text, tokenizer)) == whole
    if whole.calls:
        return
    # No call: what is left of the text stands in its fields, in order, and nothing is added.
    for kept in (whole.reasoning, whole.content):
        rest = iter(text)
        assert all(character in rest for character in kept)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(NAMES), st.lists(st.text("ab<\n é", max_size=6), max_size=6), st.booleans())
def test_fields_never_mix(name: str, written: list[str], close: bool) -> None:
    """Letters say where they were written: a in the thought, b in the answer, c in arguments."""
    thought, answer = "".join(written).replace("b", ""), "".join(written).replace("a", "")
    text = thought + (f"{END_THINK}{answer}" if close else "")
    text += block(name, [("f", [("k", "c")])])
    parsed = feed(parser_of(name), as_tokens(text, vocabulary(name)))
    assert parsed.reasoning.strip("\n") == thought.strip("\n")
    assert parsed.content.strip("\n") == (answer.strip("\n") if close else "")
    assert parsed.calls == [["f", '{"k": "c"}']]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(NAMES), st.lists(st.integers(0, len(SPECIALS) + 256), max_size=40))
def test_any_token_ids_are_parsed(name: str, ids: list[int]) -> None:
    tokenizer = vocabulary(name)
    pushes: list[Push] = [
        (index, "" if tokenizer.is_special(index) else f"{index % 10}") for index in ids
    ]
    parser = reply_parser(name, tokenizer, ids[:5])
    feed(parser, pushes)
    assert parser.kind in ("reasoning", "content", "call")


def test_parts_of_a_reply() -> None:
    assert parts(f"a{EOS}{encoder.USER}b", WITH_DSML) == [
        "a",
        WITH_DSML.special(EOS),
        WITH_DSML.special(encoder.USER),
        "b",
    ]
    assert parts(f"<{DSML}", WITHOUT_DSML) == [f"<{DSML}"]
