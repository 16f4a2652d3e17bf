"""Splits the replies of V2.5, V3, R1 and V3.1, whose calls stand between special tokens.

    V3, R1    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\\n
              ```json\\nARGUMENTS\\n```<｜tool▁call▁end｜>\\n<｜tool▁call▁begin｜> ...
    V3.1      <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>ARGUMENTS
              <｜tool▁call▁end｜><｜tool▁call▁begin｜> ... <｜tool▁calls▁end｜>

(line breaks only where \\n is written). All decisions but those about the fence are made by token
id. DeepSeek's library does not know these generations; what is not well formed goes the same way
as there, see `parser_dsml`:

- a call begins at `<｜tool▁call▁begin｜>`, with or without the token that opens the block, in an
  answer or in a thought that is not closed; the next one or the end of the block closes it, too;
- arguments stand as the model wrote them. Without the line that opens a fence all of them are
  taken, and a fence that ends the reply is not a part of them, closed or not;
- in names and arguments the names of special tokens are text; a name that breaks off and an empty
  one are no calls;
- text between calls and behind the block is skipped.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from ingle.prompt.encoder import CALL, CALLS, END_CALL, END_CALLS, END_THINK, SEP, THINK
from ingle.prompt.parser_fields import Delta, Fields, Kind

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

FENCE, END_FENCE = "```json\n", "\n```"


class _State(Enum):
    """What the next text belongs to."""

    FIELDS = auto()
    BETWEEN = auto()  # calls
    HEAD = auto()  # up to the separator: V3's type of the call, V3.1's name
    NAME = auto()  # V3's, up to the end of its line
    FENCE = auto()
    FENCED = auto()
    BARE = auto()
    DONE = auto()


class CallsParser:
    """Reads a reply with calls between special tokens; `fenced`: V3's form, otherwise V3.1's."""

    def __init__(self, tokenizer: Tokenizer, fields: Fields, fenced: bool) -> None:
        self._tokenizer, self._fields, self._fenced = tokenizer, fields, fenced
        names = (THINK, END_THINK, CALLS, CALL, SEP, END_CALL, END_CALLS)
        self._tags = {
            index: name for name in names if (index := tokenizer.find_special(name)) is not None
        }
        self._state = _State.FIELDS
        self._call = -1
        self._name: list[str] = []
        self._rest = ""  # the end of the text, where it may be a fence or the start of one

    @property
    def kind(self) -> Kind:
        return self._fields.kind if self._state is _State.FIELDS else "call"

    def push(self, token: int, text: str) -> list[Delta]:
        """The pieces known after one token; `text` is what the token completed."""
        tag = self._tags.get(token)
        if self._state is _State.FIELDS:
            return self._field_tag(tag) if tag else self._fields.text(text)
        if self._state is _State.DONE:
            return []
        if tag in (CALL, END_CALL, END_CALLS):
            deltas = self._end_call()
            self._state = {CALL: _State.HEAD, END_CALLS: _State.DONE}.get(tag, _State.BETWEEN)
            return deltas
        if tag == SEP and self._state is _State.HEAD:
            return self._separate()
        if self._tokenizer.is_special(token) and token != self._tokenizer.eos_id:
            text = self._tokenizer.token_bytes(token).decode()
        return self._take(text)

    def finish(self) -> list[Delta]:
        """What was held back when the stream ended."""
        if self._state is _State.FIELDS:
            return self._fields.finish()
        return []

    def _field_tag(self, tag: str) -> list[Delta]:
        if tag == THINK:
            return self._fields.open()
        if tag == END_THINK:
            return self._fields.close()
        if tag not in (CALLS, CALL):
            return []
        self._state = _State.HEAD if tag == CALL else _State.BETWEEN
        return self._fields.calls()

    def _separate(self) -> list[Delta]:
        if self._fenced:
            self._name.clear()
            self._state = _State.NAME
            return []
        return self._begin_call(_State.BARE)

    def _take(self, text: str) -> list[Delta]:
        """Text inside the block."""
        match self._state:
            case _State.HEAD:
                self._name.append(text)
            case _State.NAME:
                name, newline, text = text.partition("\n")
                self._name.append(name)
                if newline:
                    return self._begin_call(_State.FENCE) + self._take(text)
            case _State.FENCE:
                return self._open_fence(text)
            case _State.FENCED:
                text = self._rest + text
                end = len(text) - _held(text)
                self._rest = text[end:]
                return self._fragment(text[:end])
            case _State.BARE:
                return self._fragment(text)
        return []

    def _open_fence(self, text: str) -> list[Delta]:
        text, self._rest = self._rest + text, ""
        if text.startswith(FENCE):
            self._state = _State.FENCED
            return self._take(text[len(FENCE) :])
        if FENCE.startswith(text):
            self._rest = text
            return []
        self._state = _State.BARE
        return self._fragment(text)

    def _begin_call(self, state: _State) -> list[Delta]:
        """The name is known; an empty one is skipped with its arguments."""
        name = "".join(self._name)
        self._name.clear()
        self._state = state if name else _State.BETWEEN
        if not name:
            return []
        self._call += 1
        return [Delta("call", "", self._call, name)]

    def _end_call(self) -> list[Delta]:
        """A tag that ends the call, if there is one, in whatever state it is."""
        rest, self._rest = self._rest, ""
        if self._state is _State.NAME or (self._state is _State.HEAD and not self._fenced):
            return self._begin_call(_State.BETWEEN)
        self._name.clear()
        return self._fragment("" if rest == END_FENCE else rest)

    def _fragment(self, text: str) -> list[Delta]:
        return [Delta("call", text, self._call)] if text else []


def _held(text: str) -> int:
    """How much of the end of arguments may be the end of their fence, or the start of it."""
    for length in range(min(len(END_FENCE), len(text)), 0, -1):
        if END_FENCE.startswith(text[-length:]):
            return length
    return 0
