"""The events of one request on their way from the engine's thread to who reads them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

from ingle.engine.request import TokenEvent
from ingle.server.errors import GenerationFailedError, RequestCancelledError
from ingle.server.metrics import Meter


class TokenStream:
    """The events of one request, in order; leaving them early cancels the request.

    The engine's thread holds events here and the event loop delivers them, several as one: waking
    a reader for every token of a full batch would cost a quarter of the engine's speed
    (docs/log.md). whole: the reader shows nothing before the end, so only the end is delivered.
    joined: events that are delivered together become one.
    quiet: set at each heartbeat of the service and cleared by every delivery. meter: counts the
    events, each at the moment it was held.
    """

    def __init__(
        self,
        request_id: str,
        close: Callable[[str], None],
        whole: bool,
        meter: Meter | None = None,
        joined: bool = False,
    ) -> None:
        self.request_id = request_id
        self.quiet = False
        self.meter = meter
        self.whole = whole
        self._joined = joined or whole
        self._begun = False
        self._held: deque[tuple[TokenEvent, float]] = deque()  # its ends are safe to use at once
        self._events: asyncio.Queue[TokenEvent | Exception | None] = asyncio.Queue()
        self._close = close

    def hold(self, event: TokenEvent, at: float) -> bool:
        """Keep an event of the moment `at` for delivery; called on the engine's thread.

        Returns whether it is the first one.
        """
        first, self._begun = not self._begun, True
        self._held.append((event, at))
        return first

    def deliver(self) -> bool:
        """Hand what is held to the reader; whether the request has ended with it."""
        events = self._take()
        if not events:
            return False
        self.quiet = False
        for event in _joined(events) if self._joined else events:
            self._events.put_nowait(event)
        return events[-1].finish_reason is not None

    def beat(self) -> None:
        """A heartbeat of the service: a reader who has heard nothing since the last is told."""
        if self.quiet and not self.whole:
            self._events.put_nowait(None)
        self.quiet = True

    def end(self, error: Exception) -> None:
        """End the iteration with an error, after what was held."""
        self.deliver()
        self._events.put_nowait(error)

    async def events(self) -> AsyncGenerator[list[TokenEvent], None]:
        """Yield all events that have come since the last time; an empty list is a heartbeat.

        Raises GenerationFailedError if the model fails on the request, EngineFailedError if the
        engine does on all of them or `cancel` is called.
        """
        try:
            while True:
                waiting = [await self._events.get()]
                while not self._events.empty():
                    waiting.append(self._events.get_nowait())
                events = [event for event in waiting if isinstance(event, TokenEvent)]
                failure = next((item for item in waiting if isinstance(item, Exception)), None)
                yield [event for event in events if event.finish_reason != "error"]
                if events and events[-1].finish_reason == "error":
                    raise GenerationFailedError(events[-1].error or "The model failed.")
                if events and events[-1].finish_reason is not None:
                    return
                if failure is not None:
                    raise failure
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Stop the request if it still runs and end the iteration; harmless when it is done."""
        self.end(RequestCancelledError("The request was cancelled before its end."))
        self._close(self.request_id)

    def _take(self) -> list[TokenEvent]:
        taken = []
        while self._held:
            event, at = self._held.popleft()
            if self.meter is not None:
                self.meter.count(event, at)
            taken.append(event)
        return taken


def _joined(events: list[TokenEvent]) -> list[TokenEvent]:
    """Events of one request as one; an error stays apart from what was generated before it."""
    if len(events) < 2:
        return events
    if events[-1].finish_reason == "error":
        return [*_joined(events[:-1]), events[-1]]
    tokens = tuple(token for event in events for token in event.tokens)
    scores = next((e.prompt_logprobs for e in events if e.prompt_logprobs is not None), None)
    return [replace(events[-1], tokens=tokens, prompt_logprobs=scores)]
