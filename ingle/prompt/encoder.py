"""What every encoder is and builds on: special tokens by name, and a prompt put together safely.

Text and special tokens travel on separate roads: `Prompt.text` can never yield a special token,
whatever the text says, and `Prompt.special` takes only the names written in the encoders.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar

from ingle.errors import InvalidRequestError
from ingle.prompt.messages import Message, Tool, read_messages, read_tools
from ingle.prompt.tokenizer import well_formed

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
SYSTEM, LATEST_REMINDER = "<｜System｜>", "<｜latest_reminder｜>"
DSML = "｜DSML｜"


JSON_OBJECT: Mapping[str, Any] = {"type": "json_object"}
"""As a response_schema: any JSON object, without a schema of its own."""

TOOLS_START = -1
"""In the starts of a prompt: where the tools of the request are described, as no message is."""


@dataclass(frozen=True)
class Chat:
    """A checked request, as an encoder writes it."""

    messages: list[Message]
    tools: list[Tool]
    thinking: bool
    effort: str | int | None
    response_schema: Mapping[str, Any] | None


class Encoder(ABC):
    """The prompt format of one generation; a subclass says how a checked request is written."""

    name: str
    """The name `choose_encoder` knows it by."""

    starts_in_reasoning: bool
    """Whether a turn that answers a user, with thinking on, starts inside the thought.

    For one given prompt, `ends_in_reasoning` knows exactly.
    """

    has_effort: ClassVar[bool] = False
    """Whether the format tells the model how hard to think."""

    moves_systems: ClassVar[bool] = False
    """Whether system texts are put in front wherever they were."""

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        tokenizer: Tokenizer,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool = True,
        effort: str | int | None = None,
        response_schema: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Token ids of a conversation, ready for the model to write the next assistant turn.

        A final assistant message with `prefix: true` is left open instead, for the model to go
        on with. effort: minimal, low, medium, high (where None stands for it), xhigh, max or
        ultra; for V4.1 also 1 to 100. response_schema: a JSON schema for the answer, or
        JSON_OBJECT. A format without thoughts, efforts or words for a schema takes no notice of
        what asks for them. Raises InvalidRequestError for messages, tools or an effort that are
        malformed or that the format cannot express, ConfigError where the tokenizer lacks a
        token of the format.
        """
        return self.encode_marked(
            messages,
            tokenizer,
            tools=tools,
            thinking=thinking,
            effort=effort,
            response_schema=response_schema,
        )[0]

    def encode_marked(
        self,
        messages: Sequence[Mapping[str, Any]],
        tokenizer: Tokenizer,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool = True,
        effort: str | int | None = None,
        response_schema: Mapping[str, Any] | None = None,
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """What `encode` gives, and where in it each message starts.

        The starts are pairs (index of a token, index in `messages`), in the order of the tokens;
        TOOLS_START stands for the description of the tools. A message starts at the token that
        holds its first byte, which in formats with roles in plain text may end the one before.
        A message of which nothing is written has no start.
        """
        known = read_tools(tools)
        chat = Chat(self.read(messages), known, thinking, effort, response_schema)
        prompt = Prompt(tokenizer)
        self._write(prompt, chat)
        return prompt.ids(), prompt.starts()

    def read(self, messages: Sequence[Mapping[str, Any]]) -> list[Message]:
        """Check a conversation by this format's rules; InvalidRequestError where it breaks one.

        The messages come in the order in which they are written, which may not be that of the
        request; `Message.index` is their place there.
        """
        return read_messages(messages)

    @abstractmethod
    def _write(self, prompt: Prompt, chat: Chat) -> None:
        """Append the whole conversation to an empty prompt."""


@dataclass
class Prompt:
    """Collects text and special tokens; neighbouring texts are encoded as one."""

    tokenizer: Tokenizer
    _ids: list[int] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _marks: list[tuple[int, int]] = field(default_factory=list)
    """Messages that start in `_texts`: how many of the texts stand before one, and its index."""
    _starts: list[tuple[int, int]] = field(default_factory=list)

    def text(self, text: str) -> None:
        """Append text, in which the names of special tokens are ordinary letters."""
        if text:
            self._texts.append(text)

    def special(self, *names: str) -> None:
        """Append special tokens; ConfigError where the tokenizer lacks one."""
        self._flush()
        self._ids += map(self.tokenizer.special, names)

    def mark(self, message: int) -> None:
        """Note that this message starts here; the tokens do not depend on it."""
        self._marks.append((len(self._texts), message))

    def ids(self) -> list[int]:
        """All of it as token ids."""
        self._flush()
        return self._ids

    def starts(self) -> list[tuple[int, int]]:
        """Pairs (index of a token, message) for all marks."""
        self._flush()
        return self._starts

    def _flush(self) -> None:
        texts, marks = self._texts, self._marks
        self._texts, self._marks = [], []
        ids = self.tokenizer.encode("".join(texts)) if texts else []
        places = {0: 0, len(texts): len(ids)}  # token of each count of texts; these two are free
        if inside := {count for count, _ in marks} - places.keys():
            text_ends = list(accumulate(len(well_formed(text).encode()) for text in texts))
            token_ends = list(accumulate(len(self.tokenizer.token_bytes(index)) for index in ids))
            places |= {count: bisect_right(token_ends, text_ends[count - 1]) for count in inside}
        self._starts += [(len(self._ids) + places[count], message) for count, message in marks]
        self._ids += ids


def continue_answer(message: Message) -> str:
    """The content of a `prefix` message, in a format that has no thoughts to continue."""
    if message.reasoning and not message.content:
        raise InvalidRequestError(
            "This model's prompt format has no thoughts; continue a content.",
            f"messages[{message.index}].reasoning_content",
        )
    return message.content


def continue_turn(prompt: Prompt, message: Message, thinking: bool) -> None:
    """Leave a `prefix` message open, behind the token that opens the turn.

    With thinking, a content stands behind its thought, however empty; without a content the
    thought itself is left open. Without thinking there is only the content.
    """
    if thinking:
        prompt.special(THINK)
        prompt.text(message.reasoning or "")
    if message.content or not thinking:
        prompt.special(END_THINK)
        prompt.text(message.content)


def may_open_thought(ids: Sequence[int], tokenizer: Tokenizer) -> bool:
    """Whether a prompt leaves it to the model to open a thought: it ends at the answer's start."""
    thinks = tokenizer.find_special(THINK) is not None
    return thinks and bool(ids) and ids[-1] == tokenizer.find_special(ASSISTANT)


def ends_in_reasoning(ids: Sequence[int], tokenizer: Tokenizer) -> bool:
    """Whether a prompt leaves a thought open, so that generation starts inside it."""
    last = next((index for index in reversed(ids) if tokenizer.is_special(index)), None)
    return last is not None and last == tokenizer.find_special(THINK)
