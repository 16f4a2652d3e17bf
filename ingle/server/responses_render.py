"""The Responses shape of a reply: an object, or the events in which it grows.

Events and fields are those of DeepSeek's deepseek-recipe 0.2.0, which follows OpenAI, but for:

- the settings a response repeats are the effective ones (`temperature`, `top_p`, penalties) and
  those that the library leaves at their defaults (`store`, `background`, `metadata`,
  `parallel_tool_calls`, `previous_response_id`, `prompt_cache_key`, `safety_identifier`);
- a model that fails ends the stream with `response.failed`; the library leaves that to its host;
- with log-probabilities, tokens without text (such as the newlines between thought and answer)
  come with the text that follows them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ingle.engine.request import TokenOut
from ingle.server.chat_render import scored
from ingle.server.errors import RequestCancelledError, as_http
from ingle.server.generation import Added
from ingle.server.reply import Piece, Reply
from ingle.server.sse import named_frame

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

Event = dict[str, Any]


@dataclass
class ResponseRenderer:
    """Writes one reply in the Responses shape, as it comes or when it is there.

    settings: the object before anything is written, which is also what is shown meanwhile.
    logprobs: whether the client asked for them. keep: called with the finished object, once.
    """

    settings: dict[str, Any]
    tokenizer: Tokenizer
    reply: Reply
    logprobs: bool
    keep: Callable[[dict[str, Any]], None]
    output: list[dict[str, Any]] = field(default_factory=list)
    _events: int = 0
    _kind: tuple[str, int] | None = None  # kind and call of the item that is being written
    _texts: list[str] = field(default_factory=list)  # what has come of it
    _held: list[TokenOut] = field(default_factory=list)  # of an answer, still without text

    # --- an object ---

    def whole(self) -> dict[str, Any]:
        """The object of a reply that has ended and was not streamed."""
        for piece in self.reply.pieces:
            for _ in self._push(piece):
                pass
        for _ in self._end_item(self._status):
            pass
        return self._finished(self._status)

    def stopped(self, status: str, error: Exception | None = None) -> dict[str, Any]:
        """The object of a reply that broke off, by an error or because it was cancelled."""
        if not self.output:
            for piece in self.reply.pieces:
                for _ in self._push(piece):
                    pass
        for _ in self._end_item("incomplete"):
            pass
        return self._finished(status, error)

    # --- a stream ---

    def start(self) -> bytes:
        names = ("response.created", "response.in_progress")
        return b"".join(self._frame({"type": name, "response": self.settings}) for name in names)

    def added(self, pieces: list[Added]) -> bytes:
        return b"".join(self._frame(event) for _, piece in pieces for event in self._push(piece))

    def end(self) -> bytes:
        frames = b"".join(self._frame(event) for event in self._end_item(self._status))
        status = self._status
        return frames + self._frame(
            {"type": f"response.{status}", "response": self._finished(status)}
        )

    def failed(self, error: Exception) -> bytes:
        if isinstance(error, RequestCancelledError):  # the client is gone, or the server soon is
            self.keep = lambda response: None
        return self._frame({"type": "response.failed", "response": self.stopped("failed", error)})

    # --- its parts ---

    def _frame(self, event: Event) -> bytes:
        event["sequence_number"] = self._events
        self._events += 1
        return named_frame(event)

    @property
    def _status(self) -> str:
        return "incomplete" if self.reply.finish_reason == "length" else "completed"

    def _finished(self, status: str, error: Exception | None = None) -> dict[str, Any]:
        reply = self.reply
        response = self.settings | {"status": status, "output": self.output}
        if status in ("completed", "incomplete"):
            response["completed_at"] = int(time.time())
        if status == "incomplete":
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        if error is not None:
            response["error"] = {"code": "server_error", "message": as_http(error).message}
        if reply.prompt_tokens:  # the engine has said something
            response["usage"] = {
                "input_tokens": reply.prompt_tokens,
                "input_tokens_details": {"cached_tokens": reply.cached_tokens},
                "output_tokens": reply.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": reply.reasoning_tokens},
                "total_tokens": reply.prompt_tokens + reply.completion_tokens,
            }
        self.keep(response)
        return response

    def _push(self, piece: Piece) -> Iterator[Event]:
        """The events of one piece."""
        if self.logprobs and piece.kind == "content":
            self._held += piece.tokens
        if not (piece.text or piece.name):
            return
        if self._kind != (piece.kind, piece.call):
            yield from self._end_item("completed", before_call=piece.kind == "call")
            yield from self._begin_item(piece)
        if piece.text:
            yield self._delta(piece.text)

    def _begin_item(self, piece: Piece) -> Iterator[Event]:
        self._kind = (piece.kind, piece.call)
        id_, index = self.settings["id"], len(self.output)
        item: dict[str, Any]
        match piece.kind:
            case "reasoning":
                item = {"type": "reasoning", "id": f"rs_{id_}_{index}", "status": "in_progress"}
                item |= {"content": [], "summary": [], "encrypted_content": f"{id_}-{index}"}
                part: dict[str, Any] = {"type": "reasoning_text", "text": ""}
            case "content":
                item = {"type": "message", "id": f"msg_{id_}_{index}", "status": "in_progress"}
                item |= {"role": "assistant", "phase": "final_answer", "content": []}
                part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
            case _:
                item = {"type": "function_call", "id": f"fc_{id_}_{index}"}
                item |= {"status": "in_progress", "call_id": piece.id, "name": piece.name}
                item |= {"arguments": ""}
        self.output.append(item)
        yield {"type": "response.output_item.added", "item": _copy(item), "output_index": index}
        if piece.kind == "call":
            self._held.clear()  # newlines before a call are nobody's
        else:
            item["content"].append(part)
            yield self._of_part({"type": "response.content_part.added", "part": dict(part)})

    def _delta(self, text: str) -> Event:
        item = self.output[-1]
        self._texts.append(text)
        if item["type"] == "function_call":
            return self._of_item({"type": "response.function_call_arguments.delta", "delta": text})
        part = item["content"][0]
        event: Event = {"type": f"response.{part['type']}.delta", "delta": text}
        if item["type"] == "message":
            event["logprobs"] = [scored(self.tokenizer, token) for token in self._held]
            part["logprobs"] += event["logprobs"]
            self._held.clear()
        return self._of_part(event)

    def _end_item(self, status: str, before_call: bool = False) -> Iterator[Event]:
        """Close the item that is being written, if one is."""
        if self._kind is None:
            return
        item, self._kind = self.output[-1], None
        if item["type"] == "message" and self._held:
            yield self._delta("")
        text = "".join(self._texts)
        self._texts.clear()
        if item["type"] == "function_call":
            item["arguments"] = text
            event: Event = {"type": "response.function_call_arguments.done", "arguments": text}
            yield self._of_item(event)
        else:
            part = item["content"][0]
            part["text"] = text
            event = {"type": f"response.{part['type']}.done", "text": text}
            if item["type"] == "message":
                event["logprobs"] = part["logprobs"]
                item["phase"] = "commentary" if before_call else "final_answer"
            yield self._of_part(event)
            yield self._of_part({"type": "response.content_part.done", "part": part})
        item["status"] = status
        index = len(self.output) - 1
        yield {"type": "response.output_item.done", "item": item, "output_index": index}

    def _of_item(self, event: Event) -> Event:
        return event | {"item_id": self.output[-1]["id"], "output_index": len(self.output) - 1}

    def _of_part(self, event: Event) -> Event:
        return self._of_item(event) | {"content_index": 0}


def _copy(item: dict[str, Any]) -> dict[str, Any]:
    """An item with a content of its own, which does not grow with the item."""
    return item | {"content": []} if "content" in item else dict(item)
