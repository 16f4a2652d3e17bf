"""Splits the replies of V3.2, V4 and V4.1, whose calls are DSML, into thought, answer and calls.

    A\\n\\n<｜DSML｜tool_calls>\\n<｜DSML｜invoke name="NAME">\\n
    <｜DSML｜parameter name="KEY" string="true">VALUE</｜DSML｜parameter>\\n ...
    </｜DSML｜invoke>\\n ... </｜DSML｜tool_calls>

(line breaks only where \\n is written). `｜DSML｜` is one token of the vocabulary, and then only
that token makes a tag; V3.2's vocabulary has no such token and spells it out. Arguments become
JSON while they are written: a value with string="true" becomes a JSON string, any other stands as
the model wrote it.

What is not well formed goes the way of DeepSeek's library (deepseek-recipe 0.2.0):

- `<｜DSML｜` ends the thought or the answer, whatever follows it; other text outside of values is
  skipped up to the next `invoke name="`, `parameter name=` and so on, and so is what stands behind
  the block. `</｜DSML｜` ends a value and then the call, whatever follows it;
- a reply that breaks off leaves its last call open, `{"city": "Ber`; a name that breaks off is no
  call yet;
- in names and values the names of special tokens are text.

Differences from it:

- the names of special tokens but `｜DSML｜` are never content or reasoning, and a `<think>` in the
  content opens a thought; the library shows them as text;
- a blank, a backslash, a quote or a control character in a parameter's name is escaped like any
  other JSON; in the library a blank ends the name, so that the arguments are no JSON. Where the
  attribute behind a name is missing, both look for the end of the name too far on, in two places;
- a call with an empty name is skipped with its parameters; the library hands it out;
- newlines between a `<` and the block, or beside a stray `</think>`, are the format's as any other
  there; the library takes one or all of them for text;
- V3.2, which the library does not know: two newlines before the block belong to the format, others
  are text, as in DeepSeek's encoding_dsv32, which gives up on all that is not well formed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

from ingle.prompt.encoder import DSML, END_THINK, THINK
from ingle.prompt.parser_fields import Delta, Fields, Kind

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

# Stands for the token in text; a lone surrogate, as no text from tokens can hold one.
_TOKEN = "\udc00"


class _State(Enum):
    """What the next text belongs to."""

    FIELDS = auto()
    CALLS = auto()  # between calls
    NAME = auto()
    PARAMETERS = auto()  # between parameters
    KEY = auto()  # the first character of a parameter's name
    QUOTED = auto()
    BARE = auto()  # a name without quotes, which is an error
    TYPE = auto()  # between a parameter's name and its value
    STRING = auto()
    JSON = auto()
    DONE = auto()


class DsmlParser:
    """Reads a reply with calls in DSML; `blocks`: what the block of calls may be called."""

    def __init__(self, tokenizer: Tokenizer, fields: Fields, blocks: Sequence[str]) -> None:
        self._tokenizer, self._fields = tokenizer, fields
        self._open = tokenizer.find_special(THINK)
        self._close = tokenizer.find_special(END_THINK)
        self._dsml = tokenizer.find_special(DSML)
        self._mark = DSML if self._dsml is None else _TOKEN
        self._markers = _markers(self._mark, blocks)
        self._patterns = {state: _pattern(found) for state, found in self._markers.items()}
        self._state = _State.FIELDS
        self._rest = ""  # the end of the text, where it may be the start of a marker
        self._call = -1
        self._name: list[str] = []
        self._empty = True  # the call has no parameter yet

    @property
    def kind(self) -> Kind:
        return self._fields.kind if self._state is _State.FIELDS else "call"

    def push(self, token: int, text: str) -> list[Delta]:
        """The pieces known after one token; `text` is what the token completed."""
        if token == self._dsml:
            return self._read(self._mark)
        if self._state is not _State.FIELDS:
            if self._tokenizer.is_special(token) and token != self._tokenizer.eos_id:
                text = self._tokenizer.token_bytes(token).decode()
        elif token == self._open:
            return self._release() + self._fields.open()
        elif token == self._close:
            return self._release() + self._fields.close()
        return self._read(text)

    def finish(self) -> list[Delta]:
        """What was held back when the stream ended."""
        if self._state is _State.FIELDS:
            return self._release() + self._fields.finish()
        if self._state is _State.QUOTED:
            rest, self._rest = self._rest, ""
            return self._fragment(rest)  # the closing quote, which waited for what follows it
        return self._release()

    def _read(self, text: str) -> list[Delta]:
        text, place = self._rest + text, 0
        deltas: list[Delta] = []
        while found := self._patterns[self._state].search(text, place):
            deltas += self._take(text[place : found.start()])
            deltas += self._switch(found.group())
            place = found.end()
        end = len(text) - _held(text, place, self._markers[self._state])
        self._rest = text[end:]
        return deltas + self._take(text[place:end])

    def _release(self) -> list[Delta]:
        """What waited for the rest of a marker that does not come."""
        rest, self._rest = self._rest, ""
        return self._take(rest)

    def _take(self, text: str) -> list[Delta]:
        """Text that is no marker."""
        if not text:
            return []
        text = text.replace(self._mark, DSML)
        match self._state:
            case _State.FIELDS:
                return self._fields.text(text)
            case _State.NAME:
                self._name.append(text)
            case _State.QUOTED | _State.STRING:
                return self._fragment(json.dumps(text, ensure_ascii=False)[1:-1])
            case _State.BARE | _State.JSON:
                return self._fragment(text)
        return []

    def _switch(self, found: str) -> list[Delta]:
        """The marker that ends the state; one of its own in `_markers`."""
        match self._state:
            case _State.FIELDS:
                self._state = _State.CALLS
                return self._fields.calls()
            case _State.CALLS:
                self._state = _State.DONE if found.startswith("<") else _State.NAME
            case _State.NAME:
                return self._begin_call()
            case _State.PARAMETERS:
                return self._next_parameter(ends=found.startswith("<"))
            case _State.KEY:
                self._state = _State.QUOTED if found else _State.BARE
                return self._fragment(found)
            case _State.QUOTED | _State.BARE:
                self._state = _State.TYPE
                return self._fragment(found.replace(" ", ": "))
            case _State.TYPE:
                is_string = found == 'true">'
                self._state = _State.STRING if is_string else _State.JSON
                return self._fragment('"' if is_string else "")
            case _State.STRING | _State.JSON:
                closing = '"' if self._state is _State.STRING else ""
                self._state = _State.PARAMETERS
                return self._fragment(closing)
        return []

    def _begin_call(self) -> list[Delta]:
        name = "".join(self._name)
        self._name.clear()
        self._state = _State.PARAMETERS if name else _State.CALLS
        if not name:
            return []
        self._call += 1
        self._empty = True
        return [Delta("call", "", self._call, name)]

    def _next_parameter(self, ends: bool) -> list[Delta]:
        empty, self._empty = self._empty, False
        self._state = _State.CALLS if ends else _State.KEY
        if ends:
            return self._fragment("{}" if empty else "}")
        return self._fragment("{" if empty else ", ")

    def _fragment(self, text: str) -> list[Delta]:
        return [Delta("call", text, self._call)] if text else []


def _markers(mark: str, blocks: Sequence[str]) -> dict[_State, tuple[str, ...]]:
    """What ends each state."""
    close = f"</{mark}"
    return {
        _State.FIELDS: (f"<{mark}",),
        _State.CALLS: ('invoke name="', *(f"{close}{name}>" for name in blocks)),
        _State.NAME: ('"',),
        _State.PARAMETERS: ("parameter name=", close),
        _State.KEY: ('"', ""),
        _State.QUOTED: ('" ',),
        _State.BARE: (" ",),
        _State.TYPE: ('true">', 'false">'),
        _State.STRING: (close,),
        _State.JSON: (close,),
        _State.DONE: (),
    }


def _pattern(markers: Sequence[str]) -> re.Pattern[str]:
    """Finds the first of the markers; the empty one is found before any character, not at the
    end."""
    if not markers:
        return re.compile("(?!)")
    return re.compile("|".join(re.escape(marker) or "(?=.)" for marker in markers), re.DOTALL)


def _held(text: str, start: int, markers: Sequence[str]) -> int:
    """How much of the end of text, from `start` on, may be the start of a marker."""
    longest = max(map(len, markers), default=1) - 1
    for length in range(min(longest, len(text) - start), 0, -1):
        end = text[-length:]
        if any(marker.startswith(end) for marker in markers):
            return length
    return 0
