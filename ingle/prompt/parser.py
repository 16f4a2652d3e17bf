"""Sorts a reply into thought, answer and tool calls while it is being written.

Tags that are tokens of the vocabulary are known by their id, so that text which spells them is
text. Nothing is repaired: what breaks off is handed out as far as it goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ingle.prompt.parser_calls import CallsParser
from ingle.prompt.parser_dsml import DsmlParser
from ingle.prompt.parser_fields import R1, V4, V31, V32, Delta, Fields, Kind
from ingle.prompt.parser_thinking import ThinkingParser

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

__all__ = ["Delta", "Kind", "ReplyParser", "ThinkingParser", "reply_parser"]


class ReplyParser(Protocol):
    """Reads one reply, token by token."""

    @property
    def kind(self) -> Kind:
        """The field that the next token's text belongs to, as far as is known."""

    def push(self, token: int, text: str) -> list[Delta]:
        """The pieces known after one token; `text` is what the token completed, "" for a special
        one."""

    def finish(self) -> list[Delta]:
        """What was held back, at the end of the reply, however it ended."""


_NEWLINES = {"deepseek_v31": V31, "deepseek_v32": V32, "deepseek_v4": V4, "deepseek_v41": V4}


def reply_parser(
    encoder_name: str, tokenizer: Tokenizer, prompt: Sequence[int], calls: bool = True
) -> ReplyParser:
    """The parser of the reply to a prompt of one generation, an encoder's `name`.

    prompt: token ids; the last special token tells whether they leave a thought open. calls: the
    request offers tools; without any, what looks like a call is text, as in DeepSeek's library. A
    format without tool calls, or one not known here, has at most thoughts.
    """
    fields = Fields.after(prompt, tokenizer, _NEWLINES.get(encoder_name, R1))
    if calls:
        match encoder_name:
            case "deepseek_v32":
                return DsmlParser(tokenizer, fields, ("function_calls",))
            case "deepseek_v4" | "deepseek_v41":
                return DsmlParser(tokenizer, fields, ("tool_calls", " calls"))
            case "deepseek_v31":
                return CallsParser(tokenizer, fields, fenced=False)
            case "deepseek_v3" | "deepseek_r1" | "deepseek_r1_0528":
                return CallsParser(tokenizer, fields, fenced=True)
    return ThinkingParser(tokenizer, fields)
