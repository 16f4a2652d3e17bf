"""One JSON line for each request: what it cost and how it ended, never what it said.

There is no flag that adds contents, paths as they were sent, queries, headers or addresses.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import msgspec

from ingle.server.exchange import Exchange


class AccessLog:
    """Writes to a file descriptor. A reader that is gone or too slow never holds up an answer: the
    lines it misses are counted in the next one it gets."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._missed = 0
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, exchange: Exchange) -> None:
        """Log one request that has ended."""
        reason = "cancelled" if exchange.left else exchange.finish_reason
        asked = reason is not None
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": exchange.id,
            "method": exchange.method,
            "route": exchange.route,
            "status": exchange.status,
            "ms": _milliseconds(exchange.started, perf_counter()),
            "ttft_ms": _milliseconds(exchange.started, exchange.first_token),
            "prompt_tokens": exchange.prompt_tokens if asked else None,
            "cached_tokens": exchange.cached_tokens if asked else None,
            "completion_tokens": exchange.completion_tokens if asked else None,
            "key": exchange.key,
            "finish_reason": reason,
        }
        if self._missed:
            line["lines_missed"] = self._missed
        self._missed += 1
        with suppress(OSError):
            # a pipe that polls as writable takes a line of this size whole, at once
            if self._poll.poll(0):
                os.write(self._descriptor, msgspec.json.encode(line) + b"\n")
                self._missed = 0


def _milliseconds(start: float, end: float | None) -> float | None:
    return None if end is None else round((end - start) * 1000, 1)
