"""Server-sent events of one generation; the engine's work ends when the client is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, suppress
from typing import Any, Protocol

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ingle.errors import IngleError
from ingle.server.generation import Added, Generation, cancel_when_client_leaves

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


class StreamRenderer(Protocol):
    """How one dialect writes a stream; every method gives whole frames."""

    def start(self) -> bytes:
        """What is sent at once, before any token."""

    def added(self, pieces: list[Added]) -> bytes:
        """Frames of what was just generated, b"" if the client asked for none of it."""

    def end(self) -> bytes:
        """Frames after the last token: finish reasons, usage."""

    def failed(self, error: Exception) -> bytes:
        """The frame that ends a stream which broke after its start."""


class EventStream(Response):
    """The response of a streamed generation."""

    def __init__(
        self,
        generation: Generation,
        renderer: StreamRenderer,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(headers=HEADERS | generation.headers | (headers or {}))
        del self.headers["content-length"]
        self._generation, self._renderer = generation, renderer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(cancel_when_client_leaves(receive, self._generation))
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            with suppress(OSError):  # the client is gone
                async with aclosing(self._frames()) as frames:
                    async for frame in frames:
                        await send({"type": "http.response.body", "body": frame, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
        finally:
            watch.cancel()
            self._generation.cancel()

    async def _frames(self) -> AsyncGenerator[bytes, None]:
        renderer = self._renderer
        yield renderer.start()
        try:
            async with aclosing(self._generation.pieces()) as batches:
                async for added in batches:
                    frames = KEEP_ALIVE if added is None else renderer.added(added)
                    if frames:
                        yield frames
        except IngleError as error:  # too late for a status code
            yield renderer.failed(error)
            return
        yield renderer.end()


def data_frame(content: Any) -> bytes:
    """An event without a name."""
    return b"data: " + msgspec.json.encode(content) + b"\n\n"


def named_frame(content: dict[str, Any]) -> bytes:
    """An event named as its `type` says, as Anthropic's and OpenAI's Responses streams have it."""
    return b"event: " + content["type"].encode() + b"\n" + data_frame(content)


def join(render: Callable[[Any], dict[str, Any] | None], items: Iterable[Any]) -> bytes:
    """Frames of the items that render to something."""
    return b"".join(data_frame(chunk) for item in items if (chunk := render(item)) is not None)
