"""Where two prompts part, told in messages: why a prefix that looks the same was not cached."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingle.prompt.encoder import TOOLS_START

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

_CONTEXT = 12  # tokens shown on either side


@dataclass(frozen=True)
class Place:
    """A token of a prompt. message: which message it is in, None before the first.

    in_tools: it is in the description of the tools. offset: tokens since the start of that part.
    """

    token: int
    message: int | None
    in_tools: bool
    offset: int

    def __str__(self) -> str:
        if self.in_tools:
            return f"token {self.token}, in the tools ({self.offset} tokens into them)"
        if self.message is None:
            return f"token {self.token}, before the first message"
        return f"token {self.token}, in messages[{self.message}] ({self.offset} tokens into it)"


def place(token: int, starts: Sequence[tuple[int, int]]) -> Place:
    """The part a token is in; starts: pairs (token, message) as `Encoder.encode_marked` gives."""
    index = bisect_right([start for start, _ in starts], token) - 1
    if index < 0:
        return Place(token, None, False, token)
    start, message = starts[index]
    if message == TOOLS_START:
        return Place(token, None, True, token - start)
    return Place(token, message, False, token - start)


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two prompts have in common at their start."""
    length = min(len(first), len(second))
    return next((i for i in range(length) if first[i] != second[i]), length)


def around(ids: Sequence[int], token: int, tokenizer: Tokenizer) -> tuple[str, str]:
    """The text before a token and the text from it on, a dozen tokens each."""
    before = ids[max(0, token - _CONTEXT) : token]
    behind = ids[token : token + _CONTEXT]
    return (
        tokenizer.decode(before, skip_special=False),
        tokenizer.decode(behind, skip_special=False),
    )
