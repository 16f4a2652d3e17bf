"""One answer while it is generated: token events in, pieces of its fields out, usage at the end."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable, Iterator, Sequence
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
    """One choice of an answer: the model's tokens sorted into thought, content and calls.

    keep_tokens: whether pieces have their tokens, for log-probabilities; without, they have only
    text, and the tokens of an event that are plain text are parsed in one go.
    """

    def __init__(self, parser: ReplyParser, keep_tokens: bool = False) -> None:
        self.pieces: list[Piece] = []
        self.calls: list[Call] = []
        self.stop_reason: str | int | None = None
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.reasoning_tokens = 0
        self._finish_reason: str | None = None
        self.prompt_logprobs: tuple[TokenOut, ...] | None = None
        self._parser = parser
        self._keep_tokens = keep_tokens

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
        for run, text in _runs(event, joined=not self._keep_tokens):
            kind, token = self._parser.kind, run[-1]
            if kind == "reasoning":
                self.reasoning_tokens += len(run)
            deltas = self._parser.push(token.id, text)
            is_end = token is event.tokens[-1] and event.stop_reason == token.id
            if self._keep_tokens and kind != "call" and not is_end:
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


def _runs(event: TokenEvent, joined: bool) -> Iterator[tuple[Sequence[TokenOut], str]]:
    """The tokens of an event, each with its text; `joined`: those of plain text all together.

    A token without text may be a tag, which its id tells; so may the last one, whose text was only
    held back before it.
    """
    tokens = event.tokens
    if not joined or len(tokens) < 3:
        for token in tokens:
            yield (token,), token.text
        return
    start = 0
    for at, token in enumerate(tokens):
        if token.text and at < len(tokens) - 1:
            continue
        if start < at:
            yield tokens[start:at], "".join([one.text for one in tokens[start:at]])
        yield (token,), token.text
        start = at + 1


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
