"""What Chat Completions sends back: the reply as it grows, and its rendering, whole or in chunks.

Shapes are DeepSeek's (usage in the last chunk, `reasoning_content`) plus the nulls and the
`reasoning` spelling that other clients look for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ingle.engine.request import TokenEvent, TokenOut
from ingle.prompt.parser import Delta, Kind, ThinkingParser

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

LOWEST_LOGPROB = -9999.0  # JSON has no -inf; OpenAI's stand-in for it


@dataclass
class Piece:
    """Text of one field together with the tokens it came from."""

    kind: Kind
    text: str = ""
    tokens: list[TokenOut] = field(default_factory=list)


class Reply:
    """One answer while it is generated: events in, pieces out, usage and the whole at the end."""

    def __init__(self, tokenizer: Tokenizer, thinking: bool) -> None:
        self.thinking = thinking
        self.finish_reason: str | None = None
        self.pieces: list[Piece] = []
        self._parser = ThinkingParser(tokenizer, starts_in_reasoning=thinking)
        self._prompt = self._cached = self._completion = self._reasoning = 0

    def push(self, event: TokenEvent) -> list[Piece]:
        """Take one step's event; the pieces it adds, in order, neighbours of a kind joined."""
        added: list[Piece] = []
        for token in event.tokens:
            kind = self._parser.kind
            self._reasoning += kind == "reasoning"
            deltas = self._parser.push(token.id, token.text)
            is_end = token is event.tokens[-1] and event.stop_reason == token.id
            _append(added, Piece(kind, "", [] if is_end else [token]))
            _append_deltas(added, deltas)
        if event.finish_reason is not None:
            _append_deltas(added, self._parser.finish())
            self.finish_reason = event.finish_reason
        self._prompt, self._cached = event.prompt_tokens, event.cached_tokens
        self._completion = event.completion_tokens
        self.pieces += added
        return added

    def usage(self) -> dict[str, Any]:
        """Token counts in every spelling clients look for."""
        return {
            "prompt_tokens": self._prompt,
            "completion_tokens": self._completion,
            "total_tokens": self._prompt + self._completion,
            "prompt_tokens_details": {"cached_tokens": self._cached},
            "completion_tokens_details": {"reasoning_tokens": self._reasoning},
            "prompt_cache_hit_tokens": self._cached,
            "prompt_cache_miss_tokens": self._prompt - self._cached,
        }

    def text(self, kind: Kind) -> str:
        return "".join(piece.text for piece in self.pieces if piece.kind == kind)

    def tokens(self, kind: Kind) -> list[TokenOut]:
        return [token for piece in self.pieces if piece.kind == kind for token in piece.tokens]


def _append(pieces: list[Piece], piece: Piece) -> None:
    if pieces and pieces[-1].kind == piece.kind:
        pieces[-1].text += piece.text
        pieces[-1].tokens += piece.tokens
    elif piece.text or piece.tokens:
        pieces.append(piece)


def _append_deltas(pieces: list[Piece], deltas: Iterable[Delta]) -> None:
    for delta in deltas:
        _append(pieces, Piece(delta.kind, delta.text))


@dataclass(frozen=True)
class Renderer:
    """Writes one request's reply in the Chat Completions shape.

    logprobs: whether the client asked for them. include_usage: null usage in all chunks but the
    last (which always has it).
    """

    id: str
    created: int
    model: str
    fingerprint: str
    tokenizer: Tokenizer
    thinking: bool
    logprobs: bool
    include_usage: bool

    def completion(self, reply: Reply) -> dict[str, Any]:
        """The whole answer of a request that is not streamed."""
        reasoning = reply.text("reasoning") if self.thinking else None
        message = {
            "role": "assistant",
            "content": reply.text("content"),
            "reasoning_content": reasoning,
            "reasoning": reasoning,
            "refusal": None,
            "tool_calls": None,
        }
        logprobs = None
        if self.logprobs:
            logprobs = self._logprobs(reply.tokens("content"), reply.tokens("reasoning"))
        choice = {
            "index": 0,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": reply.finish_reason,
        }
        return self._object("chat.completion", choice) | {"usage": reply.usage()}

    def first_chunk(self) -> dict[str, Any]:
        if not self.thinking:
            return self._chunk({"role": "assistant", "content": ""})
        delta = {"role": "assistant", "content": None, "reasoning_content": "", "reasoning": ""}
        return self._chunk(delta)

    def piece_chunk(self, piece: Piece) -> dict[str, Any] | None:
        """The chunk of one piece; None if it holds nothing the client asked for."""
        if not piece.text and not self.logprobs:
            return None
        logprobs = None
        if self.logprobs:
            is_content = piece.kind == "content"
            logprobs = self._logprobs(
                piece.tokens if is_content else [], [] if is_content else piece.tokens
            )
        return self._chunk(self._delta(piece), logprobs)

    def last_chunk(self, reply: Reply) -> dict[str, Any]:
        """Finish reason and usage, in one chunk as DeepSeek sends it."""
        chunk = self._chunk(self._delta(Piece("content")), None, reply.finish_reason)
        return chunk | {"usage": reply.usage()}

    def _delta(self, piece: Piece) -> dict[str, Any]:
        if not self.thinking:
            return {"content": piece.text}
        is_reasoning = piece.kind == "reasoning"
        reasoning = piece.text if is_reasoning else None
        content = None if is_reasoning else piece.text
        return {"content": content, "reasoning_content": reasoning, "reasoning": reasoning}

    def _chunk(
        self,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        chunk = self._object("chat.completion.chunk", choice)
        return chunk | {"usage": None} if self.include_usage else chunk

    def _object(self, name: str, choice: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": name,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": [choice],
        }

    def _logprobs(self, content: list[TokenOut], reasoning: list[TokenOut]) -> dict[str, Any]:
        return {
            "content": [self._logprob(token) for token in content],
            "reasoning_content": [self._logprob(token) for token in reasoning],
            "refusal": None,
        }

    def _logprob(self, token: TokenOut) -> dict[str, Any]:
        chosen = LOWEST_LOGPROB if token.logprob is None else token.logprob
        likeliest = [self._scored(id_, logprob) for id_, logprob in token.top_logprobs]
        return self._scored(token.id, chosen) | {"top_logprobs": likeliest}

    def _scored(self, token: int, logprob: float) -> dict[str, Any]:
        spelled = self.tokenizer.token_bytes(token)
        return {
            "token": spelled.decode("utf-8", "replace"),
            "logprob": max(logprob, LOWEST_LOGPROB),
            "bytes": list(spelled),
        }
