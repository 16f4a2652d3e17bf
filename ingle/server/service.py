"""The bridge between asyncio and the engine: one thread steps the engine, the loop hears of it.

The engine is only ever stepped by its own thread. Every step's events cross to the event loop in a
single call, which sorts them into one queue per request. A request whose client left is cancelled
within a step.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Literal, Protocol

from ingle.engine.explain import PrefixReport
from ingle.engine.grammar import GrammarCompiler
from ingle.engine.request import Request, SamplingParams, TokenEvent
from ingle.engine.stats import EngineStats
from ingle.errors import ModelNotFoundError
from ingle.prompt.deepseek_r1 import DeepSeekR1
from ingle.server.errors import (
    EngineFailedError,
    GenerationFailedError,
    RequestCancelledError,
    UnavailableError,
)
from ingle.server.exchange import CURRENT
from ingle.server.metrics import Meter, Metrics

if TYPE_CHECKING:
    from ingle.prompt.encoder import Encoder
    from ingle.prompt.tokenizer import Tokenizer

log = logging.getLogger("ingle.server")

HEARTBEAT_SECONDS = 10.0

# What programs written for DeepSeek's own service ask for; one model answers here to any name.
DEEPSEEK_NAMES = ("deepseek-chat", "deepseek-reasoner", "deepseek-flash", "deepseek-v4-pro")

State = Literal["starting", "ok", "stopping", "failed"]


class EngineLike(Protocol):
    """What the server needs of an engine; submit and cancel may be called from any thread."""

    def submit(self, request: Request) -> None: ...
    def cancel(self, request_id: str) -> None: ...
    def step(self) -> list[TokenEvent]: ...
    def explain(self, prompt: list[int], salt: bytes = b"") -> PrefixReport: ...
    def check_length(self, prompt_tokens: int, max_tokens: int | None) -> None: ...
    def stats(self) -> EngineStats: ...
    @property
    def vocab(self) -> int: ...
    @property
    def eos_ids(self) -> frozenset[int]: ...
    @property
    def has_work(self) -> bool: ...
    @property
    def context(self) -> int: ...


@dataclass(frozen=True)
class ServedModel:
    """What clients are told about the model, and what they get when they ask for nothing.

    defaults: of the model's generation_config. examples: questions it was made for. encoder: its
    chat format.
    """

    name: str
    fingerprint: str
    created: int
    defaults: SamplingParams = field(default_factory=SamplingParams)
    examples: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ("ingle", *DEEPSEEK_NAMES)
    encoder: Encoder = field(default_factory=DeepSeekR1)

    def check_name(self, name: str | None) -> None:
        """Raise ModelNotFoundError for the name of another model; None is any model."""
        if name is not None and name != self.name and name not in self.aliases:
            raise ModelNotFoundError(f"No such model here. This server answers for {self.name!r}.")


class TokenStream:
    """The events of one request, in order; leaving them early cancels the request.

    quiet: set at each heartbeat of the service and cleared by every event. whole: the reader shows
    nothing before the end, so events are kept by the engine's thread and handed over as one: waking
    the event loop for each token of a full batch would cost a sixth of the engine's speed
    (docs/log.md). meter: counts the events.
    """

    def __init__(
        self, request_id: str, close: Callable[[str], None], whole: bool, meter: Meter | None = None
    ) -> None:
        self.request_id = request_id
        self.quiet = False
        self.meter = meter
        self.whole = whole
        self._held: list[tuple[TokenEvent, float]] = []
        self._events: asyncio.Queue[TokenEvent | Exception | None] = asyncio.Queue()
        self._close = close

    def hold(self, event: TokenEvent, at: float) -> None:
        """Keep an event, which is not the last, for later; called on the engine's thread."""
        self._held.append((event, at))

    def put(self, event: TokenEvent | Exception | None, at: float = 0.0) -> None:
        """Add an event of a moment, the exception that ends the stream, or None for a heartbeat."""
        if event is None and self.whole:
            return
        held, self._held = self._held, []
        if isinstance(event, TokenEvent):
            held.append((event, at))
        if self.meter is not None:
            for one, moment in held:
                self.meter.count(one, moment)
        for joined in _joined([one for one, _ in held]):
            self._events.put_nowait(joined)
        if not isinstance(event, TokenEvent):
            self._events.put_nowait(event)

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
        self.put(RequestCancelledError("The request was cancelled before its end."))
        self._close(self.request_id)


def _joined(events: list[TokenEvent]) -> list[TokenEvent]:
    """Events of one request as one; an error stays apart from what was generated before it."""
    if len(events) < 2:
        return events
    if events[-1].finish_reason == "error":
        return [*_joined(events[:-1]), events[-1]]
    tokens = tuple(token for event in events for token in event.tokens)
    scores = next((e.prompt_logprobs for e in events if e.prompt_logprobs is not None), None)
    return [replace(events[-1], tokens=tokens, prompt_logprobs=scores)]


class EngineService:
    """Owns an engine, its thread and the streams of all open requests.

    Everything but the thread's own loop is called on the event loop that called `start`.
    """

    def __init__(self, engine: EngineLike, tokenizer: Tokenizer, model: ServedModel) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self.state: State = "starting"
        self.metrics = Metrics()
        self.grammars = GrammarCompiler(tokenizer, engine.vocab, engine.eos_ids)
        self._engine = engine
        self._streams: dict[str, TokenStream] = {}
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingle-engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heart: asyncio.TimerHandle | None = None

    @property
    def open_requests(self) -> int:
        """Requests that run or wait."""
        return len(self._streams)

    async def start(self) -> None:
        """Start the engine's thread; requests are accepted from now on."""
        self._loop = asyncio.get_running_loop()
        self.state = "ok"
        self._thread.start()
        self._beat()

    def drain(self) -> None:
        """Refuse new requests from now on; the open ones go on."""
        if self.state == "ok":
            self.state = "stopping"

    async def stop(self, drain_seconds: float = 10.0) -> None:
        """Refuse new requests, give the open ones some time to end, cancel the rest."""
        self.drain()
        deadline = asyncio.get_running_loop().time() + drain_seconds
        while self._streams and self._thread.is_alive():
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.02)
        self.cancel_all()
        self.state = "stopping"
        if self._heart is not None:
            self._heart.cancel()
        self._wake.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 10.0)

    def cancel_all(self) -> None:
        """Cut all open requests short; each of their readers is told."""
        for stream in list(self._streams.values()):
            stream.cancel()

    def stats(self) -> EngineStats:
        """What the engine says about itself."""
        return self._engine.stats()

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        return self._engine.context

    def check_length(self, prompt_tokens: int, max_tokens: int | None) -> None:
        """Raise ContextLengthError unless prompt and requested output fit the context."""
        self._engine.check_length(prompt_tokens, max_tokens)

    def explain(self, prompt: list[int], salt: bytes) -> PrefixReport:
        """How much of a prompt the cache holds, and why not more."""
        return self._engine.explain(prompt, salt)

    def submit(self, request: Request, whole: bool = False) -> TokenStream:
        """Queue a request; raises what the engine refuses it with, EngineFailedError,
        UnavailableError, or HTTPError 429 if its client has asked for too much.

        whole: its reader wants all events at the end. The request is booked to the HTTP request
        this is called for.
        """
        if self.state == "failed":
            raise EngineFailedError("The engine has failed; the server must be restarted.")
        if self.state != "ok":
            raise UnavailableError("The server is stopping.")
        exchange, length = CURRENT.get(), len(request.prompt)
        if exchange is not None:
            exchange.take_prompt(length)
        meter = Meter(self.metrics, exchange, length)
        stream = TokenStream(request.id, self._close, whole, meter)
        self._streams[request.id] = stream
        try:
            self._engine.submit(request)
        except BaseException:
            del self._streams[request.id]
            if exchange is not None:
                exchange.drop_prompt(length)
            raise
        self._wake.set()
        return stream

    def _close(self, request_id: str) -> None:
        if (stream := self._streams.pop(request_id, None)) is not None:
            if stream.meter is not None:
                stream.meter.end("cancelled")
            self._engine.cancel(request_id)
            self._wake.set()

    def _beat(self) -> None:
        """One timer for all streams: a timeout per event would cost more than the event."""
        assert self._loop is not None
        for stream in self._streams.values():
            if stream.quiet:
                stream.put(None)
            stream.quiet = True
        self.metrics.rate.sample(self._engine.stats().generated_tokens, perf_counter())
        self._heart = self._loop.call_later(HEARTBEAT_SECONDS, self._beat)

    def _run(self) -> None:
        try:
            while True:
                self._wake.clear()  # before the checks, so that no submit between is slept through
                if self._engine.has_work:
                    self._send(self._engine.step())
                elif self.state == "stopping":
                    return
                else:
                    self._wake.wait()
        except Exception as error:
            log.error("The engine failed: %s", where(error))
            self._call(self._fail)

    def _send(self, events: Sequence[TokenEvent]) -> None:
        """Pass a step's events on, but for those that their readers want at the end."""
        now = perf_counter()
        wanted: list[TokenEvent] = []
        for event in events:
            stream = self._streams.get(event.request_id)
            if stream is not None and stream.whole and event.finish_reason is None:
                stream.hold(event, now)
            else:
                wanted.append(event)
        if wanted:
            self._call(self._deliver, wanted, now)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _deliver(self, events: Sequence[TokenEvent], now: float) -> None:
        for event in events:
            stream = self._streams.get(event.request_id)
            if stream is None:
                continue
            if event.finish_reason is not None:
                del self._streams[event.request_id]
            stream.quiet = False
            stream.put(event, now)

    def _fail(self) -> None:
        self.state = "failed"
        for stream in self._streams.values():
            stream.put(EngineFailedError("The engine failed while this request was open."))
            if stream.meter is not None:  # only now: what was held had to be counted first
                stream.meter.end("error")
        self._streams.clear()


def where(error: BaseException) -> str:
    """Type and line of an error for the server's own log: its message might quote a request."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return type(error).__name__
    module = traceback.tb_frame.f_globals.get("__name__", "?")
    return f"{type(error).__name__} in {module} line {traceback.tb_lineno}"
