"""The server process: uvicorn on a bound socket, from the first probe to the last answer.

While the model loads, a small server on the same socket already answers: alive, not ready. The
first SIGTERM or Ctrl-C drains: new requests get 503 with Retry-After, open answers may end until a
limit. A second one stops at once.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from ingle.server.guard import Access, Guard
from ingle.server.metrics import Metrics
from ingle.server.routes import RouteTable
from ingle.server.service import EngineService
from ingle.server.status import probes
from ingle.server.wire import Connection, Wire

HANDOVER_SECONDS = 2
FLUSH_SECONDS = 3  # for answers that are complete, or were cut short, to reach their clients


def configure(app: ASGIApp, wire: Wire) -> uvicorn.Config:
    """uvicorn's settings for an app on limited connections."""
    return uvicorn.Config(
        app,
        http=cast(Any, partial(Connection, wire)),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=wire.keep_alive_seconds,
        timeout_graceful_shutdown=FLUSH_SECONDS,
    )


class Server(uvicorn.Server):
    """Drains at the first signal, stops at the second or when nothing is left to finish."""

    def __init__(
        self, config: uvicorn.Config, service: EngineService, drain_seconds: float
    ) -> None:
        super().__init__(config)
        self._service = service
        self._drain_seconds = drain_seconds
        self._drain_ends: float | None = None
        self._signals = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Python runs this between two steps of the event loop's thread."""
        self._signals += 1
        self._service.drain()
        if self._signals > 1:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is time to close."""
        if self._signals and not self.should_exit:
            now = asyncio.get_running_loop().time()
            self._drain_ends = self._drain_ends or now + self._drain_seconds
            self.should_exit = not self._service.open_requests or now >= self._drain_ends
        if self.should_exit and self._signals:
            self._service.cancel_all()
        return await super().on_tick(counter)


@contextmanager
def starting(listener: socket.socket, access: Access) -> Iterator[None]:
    """Answer probes on a listening socket from a thread, until the block is left."""
    table = RouteTable(probes(lambda: "starting"))
    app = Guard(Starlette(routes=table.routes), access, table, lambda: "starting", Metrics())
    server = _Placeholder(configure(app, Wire()))
    arguments = ([listener.dup()],)
    threading.Thread(target=server.run, args=arguments, name="ingle-starting", daemon=True).start()
    try:
        yield
    finally:
        server.leave()


class _Placeholder(uvicorn.Server):
    """Gives the socket up as soon as it is told to; its last answers end in the background."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._closed = threading.Event()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            super().run(sockets)
        finally:
            self._closed.set()

    def leave(self) -> None:
        """Returns once no new connection can come here."""
        self.should_exit = True
        self._closed.wait(5.0)

    async def main_loop(self) -> None:
        while not self.should_exit:
            await asyncio.sleep(0.01)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self._closed.set()
        for _ in range(HANDOVER_SECONDS * 100):  # who is connected already gets an answer from here
            if not self.server_state.connections:
                break
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)


def ignore_signals() -> None:
    """uvicorn raises what stopped it once more at its end; a clean stop is no failure.

    SIG_IGN and not a function: Python takes functions away before the process has ended.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
