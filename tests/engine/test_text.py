"""Stop strings and incremental text."""

from __future__ import annotations

import random
from typing import cast

from ingle.engine.request import StopWindow, TokenOut
from ingle.engine.sampler import Sample
from ingle.engine.text import TextStream
from ingle.prompt.tokenizer import Tokenizer
from tests.engine.fake_model import FakeTokenizer

TOKENIZER = cast(Tokenizer, FakeTokenizer())


def feed(text: bytes, stop: tuple[str, ...]) -> tuple[list[TokenOut], TextStream]:
    stream = TextStream(TOKENIZER, stop)
    out: list[TokenOut] = []
    for byte in text:
        out += stream.push(Sample(byte))
        if stream.matched is not None:
            break
    return stream.finish(out), stream


def joined(tokens: list[TokenOut]) -> str:
    return "".join(token.text for token in tokens)


def test_output_ends_before_the_stop_string() -> None:
    out, stream = feed(b"one two END three", ("END", "four"))
    assert joined(out) == "one two " and stream.matched == "END"
    assert [t.id for t in out] == list(b"one two END")  # the tokens keep their ids
    assert [t.text for t in out][-3:] == ["", "", ""]


def test_a_partial_stop_string_is_held_back_and_released() -> None:
    stream = TextStream(TOKENIZER, ("abc",))
    assert joined(stream.push(Sample(ord("x")))) == "x"
    assert stream.push(Sample(ord("a"))) == []
    assert stream.push(Sample(ord("b"))) == []
    assert joined(stream.push(Sample(ord("a")))) == "ab"
    assert joined(stream.finish([])) == "a"


def test_special_tokens_keep_their_place_while_text_is_held() -> None:
    stream = TextStream(TOKENIZER, ("\nstop",))
    assert stream.push(Sample(10)) == []
    assert stream.push(Sample(256)) == []
    out = stream.push(Sample(ord("x")))
    assert [(t.id, t.text) for t in out] == [(10, "\n"), (256, ""), (ord("x"), "x")]


def test_stop_strings_count_in_their_window_only() -> None:
    window = StopWindow(open=False, opened_by=frozenset({1}), closed_by=frozenset({2}))
    stream = TextStream(TOKENIZER, ("ab",), window)
    out: list[TokenOut] = []
    for token in b"ab\1xa\2bab\1a":
        out += stream.push(Sample(token))
        assert stream.matched is None
    assert joined(out) == "ab\1xa\2bab\1"  # what was held is there as soon as the window closes
    out += stream.push(Sample(ord("b")))
    assert (joined(out), stream.matched) == ("ab\1xa\2bab\1", "ab")


def test_incomplete_characters_never_show_and_end_as_replacement() -> None:
    out, _ = feed("né".encode()[:-1], ())
    assert [t.text for t in out] == ["n", "\ufffd"]
    out, _ = feed("né.".encode(), ("é",))
    assert joined(out) == "n"


def test_random_texts_against_plain_search() -> None:
    rng = random.Random(0)
    for _ in range(500):
        text = "".join(rng.choice("ab") for _ in range(rng.randint(0, 30)))
        stops = tuple("".join(rng.choice("ab") for _ in range(rng.randint(1, 6))) for _ in range(2))
        out, stream = feed(text.encode(), stops)
        # character by character: the stop string that is complete first wins
        ends = [(text.find(s) + len(s), -len(s)) for s in stops if s in text]
        expected = text[: min(ends)[0] + min(ends)[1]] if ends else text
        assert joined(out) == expected
        assert (stream.matched is not None) == bool(ends)


def test_without_a_tokenizer_texts_are_empty() -> None:
    stream = TextStream(None, ())
    assert stream.push(Sample(5, -0.5)) == [TokenOut(5, "", -0.5)]
