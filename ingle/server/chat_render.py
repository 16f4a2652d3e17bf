"""The Chat Completions shape of a reply, whole or in chunks.

Shapes are DeepSeek's (usage in the last chunk, `reasoning_content`) plus the nulls and the
`reasoning` spelling that other clients look for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingle.engine.request import TokenOut
from ingle.server.errors import envelope
from ingle.server.generation import Added
from ingle.server.reply import Piece, Reply, usage
from ingle.server.sse import DONE, data_frame, join

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

LOWEST_LOGPROB = -9999.0  # JSON has no -inf; OpenAI's stand-in for it


@dataclass(frozen=True)
class ChatRenderer:
    """Writes one request's replies in the Chat Completions shape.

    thinking: whether they may hold thoughts. logprobs: whether the client asked for them.
    include_usage: null usage in all chunks but the last (which always has it).
    """

    id: str
    created: int
    model: str
    fingerprint: str
    tokenizer: Tokenizer
    replies: Sequence[Reply]
    thinking: bool
    logprobs: bool
    include_usage: bool

    def completion(self) -> dict[str, Any]:
        """The whole answer of a request that is not streamed."""
        choices = [self._choice(index, reply) for index, reply in enumerate(self.replies)]
        return self._object("chat.completion", choices) | {"usage": usage(self.replies)}

    # --- a stream ---

    def start(self) -> bytes:
        return join(self._first_chunk, range(len(self.replies)))

    def added(self, pieces: list[Added]) -> bytes:
        return join(self._piece_chunk, pieces)

    def end(self) -> bytes:
        """Finish reasons and usage, in one chunk as DeepSeek sends it."""
        frames = b""
        for index, reply in enumerate(self.replies):
            chunk = self._chunk(index, self._delta(Piece("content")), None, reply.finish_reason)
            if index == len(self.replies) - 1:
                chunk |= {"usage": usage(self.replies)}
            frames += data_frame(chunk)
        return frames + DONE

    def failed(self, error: Exception) -> bytes:
        return data_frame(envelope(error))

    # --- its parts ---

    def _choice(self, index: int, reply: Reply) -> dict[str, Any]:
        reasoning = reply.text("reasoning") if self.thinking else None
        content = reply.text("content")
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if reply.calls and not content else content,
            "reasoning_content": reasoning,
            "reasoning": reasoning,
            "refusal": None,
        }
        if reply.calls:
            message["tool_calls"] = [
                _call_start(number, call.id, call.name, call.arguments)
                for number, call in enumerate(reply.calls)
            ]
        logprobs = None
        if self.logprobs:
            logprobs = self._logprobs(reply.tokens("content"), reply.tokens("reasoning"))
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": reply.finish_reason,
        }

    def _first_chunk(self, index: int) -> dict[str, Any]:
        """The role, and an empty text in the field that the prompt leaves open."""
        delta = {"role": "assistant"} | self._delta(Piece(self.replies[index].kind))
        return self._chunk(index, delta)

    def _piece_chunk(self, added: Added) -> dict[str, Any] | None:
        """The chunk of one piece; None if it holds nothing the client asked for."""
        index, piece = added
        if piece.kind == "call":
            return self._chunk(index, {"tool_calls": [_call_delta(piece)]})
        if not piece.text and not self.logprobs:
            return None
        logprobs = None
        if self.logprobs:
            is_content = piece.kind == "content"
            logprobs = self._logprobs(
                piece.tokens if is_content else [], [] if is_content else piece.tokens
            )
        return self._chunk(index, self._delta(piece), logprobs)

    def _delta(self, piece: Piece) -> dict[str, Any]:
        if not self.thinking:
            return {"content": piece.text}
        is_reasoning = piece.kind == "reasoning"
        reasoning = piece.text if is_reasoning else None
        content = None if is_reasoning else piece.text
        return {"content": content, "reasoning_content": reasoning, "reasoning": reasoning}

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        chunk = self._object("chat.completion.chunk", [choice])
        return chunk | {"usage": None} if self.include_usage else chunk

    def _object(self, name: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": name,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }

    def _logprobs(self, content: list[TokenOut], reasoning: list[TokenOut]) -> dict[str, Any]:
        return {
            "content": [scored(self.tokenizer, token) for token in content],
            "reasoning_content": [scored(self.tokenizer, token) for token in reasoning],
            "refusal": None,
        }


def scored(tokenizer: Tokenizer, token: TokenOut) -> dict[str, Any]:
    """A token with its own log-probability and those of the likeliest in its place."""
    chosen = LOWEST_LOGPROB if token.logprob is None else token.logprob
    likeliest = [_spelled(tokenizer, id_, logprob) for id_, logprob in token.top_logprobs]
    return _spelled(tokenizer, token.id, chosen) | {"top_logprobs": likeliest}


def spell(token: bytes) -> str:
    r"""A token's text; bytes that are none stand as \xNN, so that no two tokens look the same."""
    return token.decode("utf-8", "backslashreplace")


def _spelled(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    spelled = tokenizer.token_bytes(token)
    return {
        "token": spell(spelled),
        "logprob": max(logprob, LOWEST_LOGPROB),
        "bytes": list(spelled),
    }


def _call_delta(piece: Piece) -> dict[str, Any]:
    if piece.name:
        return _call_start(piece.call, piece.id, piece.name, "")
    return {"index": piece.call, "function": {"arguments": piece.text}}


def _call_start(index: int, id_: str, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": id_, "type": "function", "function": function}
