"""Reading a JSON body: its media type, its size and the client's patience are checked first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from ingle.server.errors import HTTPError

MAX_BODY_BYTES = 4 << 20
READ_SECONDS = 30.0
BESIDE_BYTES = 1 << 16
_SLOW_WORDS = (b"tools", b"format", b"structured", b"previous_response_id")

Prepared = TypeVar("Prepared")


async def read_json_body(request: Request) -> bytes:
    """The raw body of an `application/json` request; HTTPError 400, 408, 413 or 415 otherwise."""
    media_type, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    charset = parameters.strip().removeprefix("charset=").strip('"')
    if media_type.strip() != "application/json" or charset not in ("", "utf-8"):
        raise HTTPError(415, "Content-Type must be application/json.", "unsupported_media_type")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPError(415, "Compressed bodies are not accepted.", "unsupported_media_type")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await _read(request)
    except TimeoutError:
        raise HTTPError(408, "The body did not arrive in time.", "request_timeout") from None
    except ClientDisconnect:
        raise HTTPError(400, "The client left before its body was complete.", "gone") from None


async def run_beside(prepare: Callable[[bytes], Prepared], body: bytes) -> Prepared:
    """Parse and encode a body: beside the event loop if that may take long, else at once.

    Long bodies take long, and so do schemas and tools, whose grammars are compiled.
    """
    if len(body) > BESIDE_BYTES or any(word in body for word in _SLOW_WORDS):
        return await asyncio.to_thread(prepare, body)
    return prepare(body)


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(body)


def _too_large() -> HTTPError:
    limit = MAX_BODY_BYTES >> 20
    return HTTPError(413, f"The body may hold at most {limit} MiB.", "body_too_large")
