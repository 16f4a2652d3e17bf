"""What every encoder is and builds on: special tokens by name, and a prompt put together safely.

Text and special tokens travel on separate roads: `Prompt.text` can never yield a special token,
whatever the text says, and `Prompt.special` takes only the names written in the encoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
THINK, END_THINK = "<think>", "</think>"
CALLS, END_CALLS = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, END_CALL = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
OUTPUTS, END_OUTPUTS = "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"
OUTPUT, END_OUTPUT = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"
SEP = "<｜tool▁sep｜>"


class Encoder(Protocol):
    """The prompt format of one generation."""

    @property
    def name(self) -> str:
        """The name `choose_encoder` knows it by."""

    @property
    def starts_in_reasoning(self) -> bool:
        """Whether a turn that answers a user, with thinking on, starts inside the thought.

        For one given prompt, `ends_in_reasoning` knows exactly.
        """

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        tokenizer: Tokenizer,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool = True,
    ) -> list[int]:
        """Token ids of a conversation, ready for the model to write the next assistant turn.

        A format without thoughts takes no notice of `thinking`. Raises InvalidRequestError for
        messages or tools that are malformed or that the format cannot express, ConfigError where
        the tokenizer lacks a token of the format.
        """


@dataclass
class Prompt:
    """Collects text and special tokens; neighbouring texts are encoded as one."""

    tokenizer: Tokenizer
    _ids: list[int] = field(default_factory=list)
    _text: str = ""

    def text(self, text: str) -> None:
        """Append text, in which the names of special tokens are ordinary letters."""
        self._text += text

    def special(self, *names: str) -> None:
        """Append special tokens; ConfigError where the tokenizer lacks one."""
        self._flush()
        self._ids += map(self.tokenizer.special, names)

    def ids(self) -> list[int]:
        """All of it as token ids."""
        self._flush()
        return self._ids

    def _flush(self) -> None:
        if self._text:
            self._ids += self.tokenizer.encode(self._text)
            self._text = ""


def ends_in_reasoning(ids: Sequence[int], tokenizer: Tokenizer) -> bool:
    """Whether a prompt leaves a thought open, so that generation starts inside it."""
    last = next((index for index in reversed(ids) if tokenizer.is_special(index)), None)
    return last is not None and last == tokenizer.find_special(THINK)
