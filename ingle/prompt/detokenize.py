"""Token ids to text, one token at a time, without ever showing half a character."""

from __future__ import annotations

from codecs import getincrementaldecoder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

_Utf8Decoder = getincrementaldecoder("utf-8")


class Detokenizer:
    """Streaming inverse of the tokenizer: the joined pieces equal `tokenizer.decode` of all ids.

    A byte-level token may end inside a UTF-8 character; its bytes wait here until the character
    is complete. Bytes that can never become a character turn into U+FFFD.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = _Utf8Decoder(errors="replace")

    def push(self, token: int) -> str:
        """Text completed by this token: "" for a special token or an incomplete character."""
        if self._tokenizer.is_special(token):
            return ""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def flush(self) -> str:
        """What was still waiting for bytes when the sequence ended, as U+FFFD."""
        return self._decoder.decode(b"", final=True)
