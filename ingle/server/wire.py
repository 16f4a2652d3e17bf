"""Raw connections under limits: how many, how large a head, how long a client may dawdle.

uvicorn's httptools protocol has no limit on the size of a head and none on the time a client takes
to send one or to read an answer; this subclass adds them. Refusals are typed JSON, and the
connection lingers for a moment so that a client still sending can read why.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingle.server.errors import HTTPError, envelope

MAX_PIPELINED = 16


@dataclass
class Wire:
    """Limits for all connections of one server, and their count.

    connections: at the limit the one that has been idle longest makes room; with none idle, the
    newcomer is refused. head_seconds: from the first byte (or the start) to the end of a head;
    discard_seconds: for the rest of a body whose answer is complete; write_seconds: for a client
    that reads nothing; keep_alive_seconds: between requests.
    """

    connections: int = 1024
    head_bytes: int = 64 << 10
    headers: int = 100
    head_seconds: float = 10.0
    discard_bytes: int = 16 << 20
    discard_seconds: float = 10.0
    write_seconds: float = 60.0
    keep_alive_seconds: int = 60
    linger_seconds: float = 1.0
    refused: Counter[str] = field(default_factory=Counter)
    idle: dict[Connection, None] = field(default_factory=dict)  # longest idle first
    busy: set[Connection] = field(default_factory=set)

    @property
    def open(self) -> int:
        """Connections that count against the limit."""
        return len(self.idle) + len(self.busy)


BAD_REQUEST = HTTPError(400, "This is not a valid HTTP/1.1 request.", "bad_request")
NO_UPGRADE = HTTPError(
    400, "This server speaks HTTP/1.1 only: send no Upgrade and no CONNECT.", "no_upgrade"
)
LARGE_HEAD = HTTPError(431, "The request line and headers are too large.", "head_too_large")
SLOW_HEAD = HTTPError(408, "The request did not arrive in time.", "request_timeout")
PIPELINED = HTTPError(400, "Too many requests were sent ahead of their answers.", "pipelined")
FULL = HTTPError(
    503, "Too many connections are open. Try again later.", "too_many_connections", "server_error",
    headers={"Retry-After": "1"},
)  # fmt: skip


class _RefusedError(Exception):
    """Carries a refusal out of a callback of the parser."""

    def __init__(self, error: HTTPError) -> None:
        super().__init__(error.code)
        self.error = error


class Connection(HttpToolsProtocol):
    """One client connection; `functools.partial(Connection, wire)` is uvicorn's protocol class."""

    def __init__(self, wire: Wire, **options: Any) -> None:
        super().__init__(**options)
        self._wire = wire
        self._in_head = True  # waiting for a head or amid one
        self._began = False
        self._head_bytes = 0
        self._discarded = 0
        self._body_done = True
        self._lingers = False
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    # --- the life of the connection ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        wire = self._wire
        if wire.open >= wire.connections:
            victim = next(iter(wire.idle), None)
            if victim is None:
                self._refuse(FULL, linger=False)
                return
            del wire.idle[victim]
            wire.refused["idle"] += 1
            victim.transport.close()
        wire.idle[self] = None
        self._arm(wire.head_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wire.idle.pop(self, None)
        self._wire.busy.discard(self)
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            self._discard(len(data))
            return
        self._unset_keepalive_if_required()
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            cause = error.__context__
            self._refuse(cause.error if isinstance(cause, _RefusedError) else BAD_REQUEST)
            return
        if self._in_head and self._head_bytes > self._wire.head_bytes:
            self._refuse(LARGE_HEAD)

    # --- one request after the other ---

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._began = True
        self._arm(self._wire.head_seconds, self._head_is_late)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer must not pass for a header
        if len(self.headers) >= self._wire.headers:
            raise _RefusedError(LARGE_HEAD)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            raise _RefusedError(NO_UPGRADE)
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self._wire.head_bytes:
            raise _RefusedError(LARGE_HEAD)
        if not self.url.startswith((b"/", b"*")) and not self._names_its_host():
            raise _RefusedError(BAD_REQUEST)
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _RefusedError(PIPELINED)
        self._in_head = self._body_done = False
        self._discarded = 0
        self._disarm()
        self._wire.idle.pop(self, None)
        self._wire.busy.add(self)
        super().on_headers_complete()

    def _names_its_host(self) -> bool:
        """Whether a whole URL in the request line, as for a proxy, has the host of the header: who
        may ask is decided by that one."""
        try:
            host = httptools.parse_url(self.url)
        except httptools.HttpParserInvalidURLError:
            return False
        named = host.host or b""
        if host.port:
            named += b":%d" % host.port
        return [named] == [value for name, value in self.headers if name == b"host"]

    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            self._discard(len(body))
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head, self._body_done = True, True
        self._began = False
        self._head_bytes = 0
        if self.cycle.response_complete:
            self._rest()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or not self.cycle.response_complete:
            return  # over for good, or a request sent ahead comes next
        if self._body_done:
            self._rest()
        else:
            self._arm(self._wire.discard_seconds, self._body_is_late)

    def _rest(self) -> None:
        """Answer and request are over: the connection may be closed if others need its place."""
        self._wire.busy.discard(self)
        self._wire.idle[self] = None
        if self._began:  # the next head has begun to arrive already
            self._arm(self._wire.head_seconds, self._head_is_late)
        else:
            self._arm(self._wire.keep_alive_seconds, self.transport.close)

    # --- clients that dawdle ---

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self._wire.write_seconds, self._reads_nothing)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _reads_nothing(self) -> None:
        self._wire.refused["reads_nothing"] += 1
        self.transport.abort()

    def _body_is_late(self) -> None:
        self._wire.refused["slow_body"] += 1
        self.transport.abort()

    def _head_is_late(self) -> None:
        if self in self._wire.busy:  # the answer before it comes first
            self._arm(self._wire.head_seconds, self._head_is_late)
        elif self._began:
            self._refuse(SLOW_HEAD)
        else:  # a browser's spare connection: nothing was asked, so nothing is answered
            self._wire.refused["silent"] += 1
            self.transport.close()

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > self._wire.discard_bytes:
            self.transport.abort()

    def _arm(self, seconds: float, late: Callable[[], None]) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # --- refusals before there is a request ---

    def _refuse(self, error: HTTPError, linger: bool = True) -> None:
        self._wire.refused[error.code] += 1
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()  # amid an answer there is no place for another
            return
        self.transport.write(_answer(error))
        self._lingers = True
        if linger and self.transport.can_write_eof():
            self.transport.write_eof()
            self._arm(self._wire.linger_seconds, self.transport.abort)
        else:
            self.transport.close()


def _answer(error: HTTPError) -> bytes:
    body = msgspec.json.encode(envelope(error))
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Connection": "close",
        **error.headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n{head}\r\n".encode() + body
    )
