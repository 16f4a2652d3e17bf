"""The pieces every reply parser hands out, and how thought and answer share a reply.

What belongs to the format and not to the text are newlines only, and their rules differ:

    R1 and before     one after `<think>`, one before `</think>`, two after it
    V3.1              none
    V3.2              two before a block of calls
    V4, V4.1          any number at the start and at the end of a thought, at the start of the
                      answer and before a block of calls
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ingle.prompt.encoder import END_THINK, THINK

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

Kind = Literal["reasoning", "content", "call"]
ANY = sys.maxsize


@dataclass(frozen=True)
class Delta:
    """A piece of the reply, in the field it belongs to.

    text: for a call a fragment of its arguments' JSON text, which may be empty.
    call: which call of the reply, counted from 0; -1 for the other kinds.
    name: the function to call, on the first delta of each call only.
    """

    kind: Kind
    text: str
    call: int = -1
    name: str = ""


@dataclass(frozen=True)
class Newlines:
    """How many newlines belong to the format, at most, at each seam of a reply."""

    lead: int = 0
    """After `<think>`."""
    tail: int = 0
    """Before `</think>`."""
    after: int = 0
    """After `</think>`."""
    gap: int = 0
    """Before a block of calls."""


R1 = Newlines(lead=1, tail=1, after=2)
V31 = Newlines()
V32 = Newlines(gap=2)
V4 = Newlines(lead=ANY, tail=ANY, after=ANY, gap=ANY)


class Fields:
    """Puts text into the field that is open, less the newlines of the format.

    Newlines at the end wait until it is known what they stand before. A second `<think>` opens
    reasoning again; a tag that changes nothing is ignored.
    """

    def __init__(self, newlines: Newlines, in_reasoning: bool, to_drop: int) -> None:
        self.kind: Literal["reasoning", "content"] = "reasoning" if in_reasoning else "content"
        self._newlines = newlines
        self._to_drop = to_drop  # of the newlines that come next
        self._held = 0

    @classmethod
    def after(cls, prompt: Sequence[int], tokenizer: Tokenizer, newlines: Newlines) -> Fields:
        """The field a prompt leaves open. Where the prompt itself begins its text, as in prefix
        completion, the newlines that follow are text, too."""
        place = len(prompt)
        while place and not tokenizer.is_special(prompt[place - 1]):
            place -= 1
        last = prompt[place - 1] if place else None
        if last is not None and last == tokenizer.find_special(THINK):
            begun = tokenizer.decode(prompt[place:]).strip("\n")
            return cls(newlines, True, 0 if begun else newlines.lead)
        opens = last is not None and last == tokenizer.find_special(END_THINK)
        return cls(newlines, False, newlines.after if opens and place == len(prompt) else 0)

    def text(self, text: str) -> list[Delta]:
        """Text of the open field; what is known of it by now."""
        dropped = min(len(text) - len(text.lstrip("\n")), self._to_drop)
        text = text[dropped:]
        if not text:
            self._to_drop -= dropped
            return []
        self._to_drop = 0
        body = text.rstrip("\n")
        known = "\n" * self._held + body if body else ""
        self._held = len(text) - len(body) + (0 if body else self._held)
        excess = max(0, self._held - self._limit())
        self._held -= excess
        return self._delta(known + "\n" * excess)

    def open(self) -> list[Delta]:
        """`<think>`."""
        if self.kind == "reasoning":
            return []
        deltas = self._release(0)
        self.kind, self._to_drop = "reasoning", self._newlines.lead
        return deltas

    def close(self) -> list[Delta]:
        """`</think>`."""
        if self.kind == "content":
            return []
        deltas = self._release(self._newlines.tail)
        self.kind, self._to_drop = "content", self._newlines.after
        return deltas

    def calls(self) -> list[Delta]:
        """The start of a block of calls, which ends the field."""
        return self._release(self._newlines.gap)

    def finish(self) -> list[Delta]:
        """The end of the reply."""
        return self._release(0)

    def _limit(self) -> int:
        newlines = self._newlines
        return newlines.gap if self.kind == "content" else max(newlines.tail, newlines.gap)

    def _release(self, drop: int) -> list[Delta]:
        held, self._held = self._held, 0
        return self._delta("\n" * max(0, held - drop))

    def _delta(self, text: str) -> list[Delta]:
        return [Delta(self.kind, text)] if text else []
