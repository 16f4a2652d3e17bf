"""Streaming text never shows half a character and loses none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingle.prompt.detokenize import Detokenizer

SPECIAL = 256


class Bytes:
    """A tokenizer whose ids 0 to 255 are bytes."""

    def is_special(self, index: int) -> bool:
        return index == SPECIAL

    def token_bytes(self, index: int) -> bytes:
        return b"<special>" if index == SPECIAL else bytes([index])


def texts(data: bytes | list[int]) -> list[str]:
    stream = Detokenizer(Bytes())
    return [*(stream.push(index) for index in data), stream.flush()]


@given(st.text())
def test_joined_pieces_are_the_text(text):
    pieces = texts(text.encode())
    assert "".join(pieces) == text
    assert all(len(piece) <= 1 for piece in pieces)


@given(st.binary())
def test_any_bytes_read_like_a_lenient_decode(data):
    assert "".join(texts(data)) == data.decode("utf-8", errors="replace")


def test_characters_wait_for_their_last_byte():
    assert texts("é".encode()) == ["", "é", ""]
    assert texts("😀".encode()[:3]) == ["", "", "", "\ufffd"]


def test_specials_have_no_text_and_break_nothing():
    first, last = "é".encode()
    assert texts([SPECIAL, first, SPECIAL, last]) == ["", "", "", "é", ""]
