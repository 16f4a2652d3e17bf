"""One answer while it is generated: token events in, pieces of its fields out, usage at the end."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ingle.engine.request import TokenEvent, TokenOut
from ingle.prompt.parser import Delta, Kind, ReplyParser

_LETTERS = string.ascii_letters + string.digits


@dataclass
class Piece:
    """Text of one field together with the tokens it came from.

    Of a tool call, `text` is a fragment of its arguments; the piece that opens the call has its
    `name`, its `id` and no text.
    """

    kind: Kind
    text: str = ""
    tokens: list[TokenOut] = field(default_factory=list)
    call: int = -1
    name: str = ""
    id: str = ""


@dataclass
class Call:
    """A tool call of a finished reply; `arguments` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str = ""


class Reply:
    """One choice of an answer: the model's tokens sorted into thought, content and calls."""

    def __init__(self, parser: ReplyParser) -> None:
        self.pieces: list[Piece] = []
        self.calls: list[Call] = []
        self.stop_reason: str | int | None = None
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.reasoning_tokens = 0
        self._finish_reason: str | None = None
        self.prompt_logprobs: tuple[TokenOut, ...] | None = None
        self._parser = parser

    @property
    def finish_reason(self) -> str | None:
        """stop, length, tool_calls or cancelled; None while it is being written."""
        if self._finish_reason == "stop" and self.calls:
            return "tool_calls"
        return self._finish_reason

    @property
    def kind(self) -> Kind:
        """The field that comes next; before the first token, the one the prompt leaves open."""
        return self._parser.kind

    def push(self, event: TokenEvent) -> list[Piece]:
        """Take one step's event; the pieces it adds, in order, neighbours of a kind joined."""
        added: list[Piece] = []
        for token in event.tokens:
            kind = self._parser.kind
            self.reasoning_tokens += kind == "reasoning"
            deltas = self._parser.push(token.id, token.text)
            is_end = token is event.tokens[-1] and event.stop_reason == token.id
            if kind != "call" and not is_end:
                _append(added, Piece(kind, "", [token]))
            self._add(added, deltas)
        if event.finish_reason is not None:
            self._add(added, self._parser.finish())
            self._finish_reason, self.stop_reason = event.finish_reason, event.stop_reason
        self.prompt_tokens, self.cached_tokens = event.prompt_tokens, event.cached_tokens
        self.completion_tokens = event.completion_tokens
        if event.prompt_logprobs is not None:
            self.prompt_logprobs = event.prompt_logprobs
        self.pieces += added
        return added

    def text(self, kind: Kind) -> str:
        return "".join(piece.text for piece in self.pieces if piece.kind == kind)

    def tokens(self, kind: Kind) -> list[TokenOut]:
        return [token for piece in self.pieces if piece.kind == kind for token in piece.tokens]

    def _add(self, added: list[Piece], deltas: Iterable[Delta]) -> None:
        for delta in deltas:
            if delta.kind != "call":
                _append(added, Piece(delta.kind, delta.text))
                continue
            if delta.name:
                call = Call(_call_id(delta.call), delta.name)
                self.calls.append(call)
                added.append(Piece("call", call=delta.call, name=call.name, id=call.id))
            if delta.text:
                self.calls[delta.call].arguments += delta.text
                _append(added, Piece("call", delta.text, call=delta.call))


def usage(replies: Sequence[Reply], choices: int | None = None) -> dict[str, Any]:
    """Token counts of all replies in every spelling clients look for.

    choices: how many replies share a prompt, which then counts once; None: all of them do.
    """
    firsts = replies[:: choices or len(replies)]
    prompt = sum(reply.prompt_tokens for reply in firsts)
    cached = sum(reply.cached_tokens for reply in firsts)
    completion = sum(reply.completion_tokens for reply in replies)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {
            "reasoning_tokens": sum(reply.reasoning_tokens for reply in replies)
        },
        "prompt_cache_hit_tokens": cached,
        "prompt_cache_miss_tokens": prompt - cached,
    }


def _append(pieces: list[Piece], piece: Piece) -> None:
    last = pieces[-1] if pieces else None
    joins = last is not None and (last.kind, last.call) == (piece.kind, piece.call)
    if last is not None and joins and not last.name:
        last.text += piece.text
        last.tokens += piece.tokens
    elif piece.text or piece.tokens:
        pieces.append(piece)


def _call_id(index: int) -> str:
    """DeepSeek's form of a call's name: its place and twenty random letters."""
    return f"call_{index:02d}_" + "".join(secrets.choice(_LETTERS) for _ in range(20))
