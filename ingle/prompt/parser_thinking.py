"""Splits the replies of generations without tool calls into thought and answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingle.prompt.deepseek_r1 import has_thinking
from ingle.prompt.encoder import END_THINK, THINK
from ingle.prompt.parser_fields import Delta, Fields, Kind

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer


class ThinkingParser:
    """Decides by token id, never by text, what is reasoning and what is content.

    A thought that is never closed stays reasoning to the end; a second `<think>` opens reasoning
    again; a stray tag is ignored.
    """

    def __init__(self, tokenizer: Tokenizer, fields: Fields) -> None:
        thinks = has_thinking(tokenizer)
        self._open = tokenizer.find_special(THINK) if thinks else None
        self._close = tokenizer.find_special(END_THINK) if thinks else None
        self._fields = fields

    @property
    def kind(self) -> Kind:
        return self._fields.kind

    def push(self, token: int, text: str) -> list[Delta]:
        """The pieces known after one token; `text` is what the token completed."""
        deltas = self._fields.text(text)
        if token == self._open:
            deltas += self._fields.open()
        elif token == self._close:
            deltas += self._fields.close()
        return deltas

    def finish(self) -> list[Delta]:
        """What was held back when the stream ended."""
        return self._fields.finish()
