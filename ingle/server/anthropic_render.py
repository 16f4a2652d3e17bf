"""Anthropic's shape of a reply: content blocks, whole or as the events that build them.

The order of events and their fields are those of DeepSeek's deepseek-recipe 0.2.0; `input_tokens`
counts what the cache did not have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from ingle.prompt.parser import Kind
from ingle.server.errors import as_http
from ingle.server.generation import Added
from ingle.server.reply import Call, Piece, Reply
from ingle.server.sse import named_frame

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_DELTAS: dict[Kind, tuple[str, str]] = {
    "reasoning": ("thinking_delta", "thinking"),
    "content": ("text_delta", "text"),
    "call": ("input_json_delta", "partial_json"),
}


@dataclass
class AnthropicRenderer:
    """Writes one reply, of which nothing is generated yet, in the Messages shape.

    thinking: whether it may hold a thought; one that the prompt opens is a block even if empty.
    """

    id: str
    model: str
    reply: Reply
    thinking: bool
    prompt_tokens: int
    _index: int = -1  # of the block that was opened last
    _open: tuple[Kind, int] | None = field(default=None)  # its kind and call
    _begins: bool = False  # with a thought

    def __post_init__(self) -> None:
        self._begins = self.thinking and self.reply.kind == "reasoning"

    def message(self) -> dict[str, Any]:
        """The whole answer of a request that is not streamed."""
        blocks: list[dict[str, Any]] = []
        thought = self.reply.text("reasoning")
        if self._begins or (self.thinking and thought):
            blocks.append({"type": "thinking", "thinking": thought, "signature": self.id})
        if text := self.reply.text("content"):
            blocks.append({"type": "text", "text": text})
        blocks += [_tool_use(call) for call in self.reply.calls]
        return self._envelope(blocks, *self._stop()) | {"usage": self._usage()}

    # --- a stream ---

    def start(self) -> bytes:
        """The message's start and, where the prompt opens a thought, its block at once."""
        message = self._envelope([], None, None) | {"usage": self._usage()}
        frames = named_frame({"type": "message_start", "message": message})
        if self._begins:
            frames += self._open_block("reasoning", Piece("reasoning"))
        return frames

    def added(self, pieces: list[Added]) -> bytes:
        return b"".join(self._piece(added.piece) for added in pieces)

    def end(self) -> bytes:
        reason, sequence = self._stop()
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        return (
            self._close_block()
            + named_frame({"type": "message_delta", "delta": delta, "usage": self._usage()})
            + named_frame({"type": "message_stop"})
        )

    def failed(self, error: Exception) -> bytes:
        http = as_http(error)
        content = {"type": "error", "error": {"type": http.type, "message": http.message}}
        return named_frame(content)

    # --- its parts ---

    def _piece(self, piece: Piece) -> bytes:
        if piece.kind == "call" and piece.name:
            return self._close_block() + self._open_block("call", piece)
        if not piece.text:
            return b""
        frames = b""
        if self._open != (piece.kind, piece.call):
            frames = self._close_block() + self._open_block(piece.kind, piece)
        type_, name = _DELTAS[piece.kind]
        return frames + self._delta({"type": type_, name: piece.text})

    def _open_block(self, kind: Kind, piece: Piece) -> bytes:
        self._index += 1
        self._open = (kind, piece.call)
        block: dict[str, Any] = {"type": "text", "text": ""}
        if kind == "reasoning":
            block = {"type": "thinking", "thinking": "", "signature": ""}
        elif kind == "call":
            block = {"type": "tool_use", "id": piece.id, "name": piece.name, "input": {}}
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return named_frame(start) + (named_frame({"type": "ping"}) if self._index == 0 else b"")

    def _close_block(self) -> bytes:
        if self._open is None:
            return b""
        frames = b""
        if self._open[0] == "reasoning":
            frames = self._delta({"type": "signature_delta", "signature": self.id})
        self._open = None
        return frames + named_frame({"type": "content_block_stop", "index": self._index})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return named_frame({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _stop(self) -> tuple[str | None, str | None]:
        """Anthropic's stop_reason and stop_sequence."""
        reply = self.reply
        if reply.finish_reason == "stop" and isinstance(reply.stop_reason, str):
            return "stop_sequence", reply.stop_reason
        return STOP_REASONS.get(reply.finish_reason or "", reply.finish_reason), None

    def _envelope(
        self, content: list[dict[str, Any]], reason: str | None, sequence: str | None
    ) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
        }

    def _usage(self) -> dict[str, Any]:
        cached = self.reply.cached_tokens
        return {
            "input_tokens": self.prompt_tokens - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": self.reply.completion_tokens,
            "service_tier": "standard",
        }


def _tool_use(call: Call) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call.arguments)}


def _input(arguments: str) -> Any:
    """The arguments as an object; what a truncated or malformed call holds stays visible."""
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"_malformed": arguments}
