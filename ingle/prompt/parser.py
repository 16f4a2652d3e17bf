"""Splits a generated token stream into reasoning and content while it is being written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ingle.prompt.deepseek_r1 import END_THINK, THINK, has_thinking

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

Kind = Literal["reasoning", "content"]


@dataclass(frozen=True)
class Delta:
    """A piece of the answer, in the field it belongs to."""

    kind: Kind
    text: str


class ThinkingParser:
    """Decides by token id, never by text, what is reasoning and what is content.

    The newline after `<think>`, the one before `</think>` and the two after it belong to the
    format and are dropped, however the tokens fall. A thought that is never closed stays
    reasoning to the end; a second `<think>` opens reasoning again; a stray tag is ignored.
    """

    def __init__(self, tokenizer: Tokenizer, starts_in_reasoning: bool = True) -> None:
        thinks = has_thinking(tokenizer)
        self._open = tokenizer.find_special(THINK)
        self._close = tokenizer.find_special(END_THINK)
        self.kind: Kind = "reasoning" if starts_in_reasoning and thinks else "content"
        self._newlines_to_drop = 1 if self.kind == "reasoning" else 0
        self._held_newline = False  # the last one of a thought, until we know what follows it

    def push(self, token: int, text: str) -> list[Delta]:
        """The pieces known after one token; `text` is what the token completed."""
        deltas = self._emit(text)
        if token == self._open and self.kind == "content":
            self.kind, self._newlines_to_drop = "reasoning", 1
        elif token == self._close and self.kind == "reasoning":
            self.kind, self._newlines_to_drop, self._held_newline = "content", 2, False
        return deltas

    def finish(self) -> list[Delta]:
        """What was held back when the stream ended."""
        if not self._held_newline:
            return []
        self._held_newline = False
        return [Delta(self.kind, "\n")]

    def _emit(self, text: str) -> list[Delta]:
        while text and self._newlines_to_drop:
            if not text.startswith("\n"):
                self._newlines_to_drop = 0
                break
            self._newlines_to_drop -= 1
            text = text[1:]
        if not text:
            return []
        if self.kind == "reasoning":
            text = "\n" * self._held_newline + text
            self._held_newline = text.endswith("\n")
            text = text[: len(text) - self._held_newline]
        return [Delta(self.kind, text)] if text else []
