"""One vocabulary for everything that can go wrong over HTTP, and the one place that writes it.

Messages are fixed sentences or come from `ingle.errors`; they never hold a path, a traceback, an
address in memory or the text of a request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.responses import Response

from ingle.errors import (
    ContextLengthError,
    IngleError,
    InvalidRequestError,
    ModelNotFoundError,
    QueueFullError,
)

RETRY_AFTER_SECONDS = 1


@dataclass
class HTTPError(Exception):
    """A refusal that belongs to HTTP itself: authentication, hosts, sizes, unknown routes."""

    status: int
    message: str
    code: str
    type: str = "invalid_request_error"
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] | None = None  # what a client's program reads to go on by itself


class EngineFailedError(IngleError):
    """The engine stopped working; nothing can be answered until the server is restarted."""

    code = "engine_failed"


class RequestCancelledError(EngineFailedError):
    """The request was stopped: its client left or wished it, or the server stops."""


class UnavailableError(IngleError):
    """The server is not ready yet, or finishes what it has begun and takes nothing new."""

    code = "unavailable"


class GenerationFailedError(IngleError):
    """The model could not finish this one request; others are not affected."""

    code = "generation_failed"


def as_http(error: Exception) -> HTTPError:
    """The refusal a client sees for any exception; unknown ones become a bare 500."""
    if isinstance(error, HTTPError):
        return error
    if isinstance(error, ContextLengthError | InvalidRequestError):
        return HTTPError(400, str(error), error.code, param=error.param)
    if isinstance(error, ModelNotFoundError):
        return HTTPError(404, str(error), error.code, param="model")
    if isinstance(error, QueueFullError):
        retry = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return HTTPError(429, str(error), error.code, "rate_limit_error", headers=retry)
    if isinstance(error, UnavailableError):
        retry = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return HTTPError(503, str(error), error.code, "server_error", headers=retry)
    if isinstance(error, EngineFailedError):
        return HTTPError(503, str(error), error.code, "server_error")
    if isinstance(error, GenerationFailedError):
        return HTTPError(500, str(error), error.code, "server_error")
    return HTTPError(500, "Internal error.", "internal_error", "server_error")


def envelope(error: Exception) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`, the shape every OpenAI client reads."""
    http = as_http(error)
    content: dict[str, Any] = {
        "message": http.message,
        "type": http.type,
        "param": http.param,
        "code": http.code,
    }
    return {"error": content | ({"details": http.details} if http.details else {})}


def error_response(error: Exception) -> Response:
    """The response for any exception, the same on every route."""
    http = as_http(error)
    return json_response(envelope(error), http.status, http.headers)


def json_response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A JSON response that no cache keeps."""
    return Response(
        msgspec.json.encode(content),
        status,
        {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})},
        "application/json",
    )
