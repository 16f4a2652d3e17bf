"""The bridge between asyncio and the engine: one thread steps the engine, the loop hears of it.

The engine is only ever stepped by its own thread, which leaves each event at its request's stream.
The event loop is woken at once for what begins or ends, and otherwise once in a while for all
streams together. A request whose client left is cancelled within a step.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Literal, Protocol

from ingle.engine.explain import PrefixReport
from ingle.engine.grammar import GrammarCompiler
from ingle.engine.request import Request, SamplingParams, TokenEvent
from ingle.engine.stats import EngineStats
from ingle.errors import ContextLengthError, ModelNotFoundError
from ingle.prompt.deepseek_r1 import DeepSeekR1
from ingle.server.errors import EngineFailedError, UnavailableError
from ingle.server.exchange import CURRENT
from ingle.server.metrics import Meter, Metrics
from ingle.server.stream import TokenStream

if TYPE_CHECKING:
    from ingle.prompt.encoder import Encoder
    from ingle.prompt.tokenizer import Tokenizer

log = logging.getLogger("ingle.server")

HEARTBEAT_SECONDS = 10.0
LOOP_SHARE = 0.015  # of a core that delivering to streams may take: the rest belongs to the engine
LONGEST_PACE = 0.2  # seconds between two deliveries to a stream, however many there are

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


class EngineService:
    """Owns an engine, its thread and the streams of all open requests.

    pace: least seconds between two deliveries of what streams have in the making; 0 delivers every
    step's. With many streams it grows until the event loop takes LOOP_SHARE of a core, at most to
    LONGEST_PACE. A token that begins or ends an answer never waits. bandwidth: bytes a second that
    the machine reads from memory, for the metrics; 0 if not measured.

    Everything but the thread's own loop is called on the event loop that called `start`.
    """

    def __init__(
        self,
        engine: EngineLike,
        tokenizer: Tokenizer,
        model: ServedModel,
        pace: float = 0.0,
        bandwidth: float = 0.0,
    ) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self.state: State = "starting"
        self.metrics = Metrics()
        self.grammars = GrammarCompiler(tokenizer, engine.vocab, engine.eos_ids)
        self.bandwidth = bandwidth
        self._engine = engine
        self._pace = self._interval = pace
        self._delivered = 0.0  # when, on the event loop's clock
        self._spent = 0.0  # processor time of the event loop until then
        self._planned = False  # whether the event loop knows that streams hold events
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

    def check_text(self, characters: int, param: str) -> None:
        """Raise ContextLengthError for a text too long for the context whatever is in it, which
        need not be encoded to be told so: megabytes take seconds."""
        least = self.tokenizer.least_tokens(characters)
        if least > self.context:
            raise ContextLengthError(
                f"The prompt has at least {least} tokens; the context holds {self.context} tokens "
                "of prompt and output. Shorten the prompt.",
                param,
            )

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
        stream = TokenStream(request.id, self._close, whole, meter, joined=self._pace > 0)
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
            stream.beat()
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
        """Leave a step's events at their streams and see to it that they are delivered."""
        now = perf_counter()
        ready: list[TokenStream] = []
        held = False
        for event in events:
            stream = self._streams.get(event.request_id)
            if stream is None:
                continue
            first = stream.hold(event, now)
            if event.finish_reason is not None:
                ready.append(stream)
            elif not stream.whole:
                if first or not self._pace:
                    ready.append(stream)
                else:
                    held = True
        if ready:
            self._call(self._deliver, ready)
        if held and not self._planned:
            self._planned = True
            self._call(self._plan)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _plan(self) -> None:
        assert self._loop is not None
        due = self._delivered + self._interval
        if due <= self._loop.time():
            self._deliver_all()
        else:
            self._loop.call_at(due, self._deliver_all)

    def _deliver_all(self) -> None:
        assert self._loop is not None
        self._planned = False  # before the streams are emptied, so that nothing stays behind
        self._delivered, spent = self._loop.time(), thread_time()
        longest = max(self._pace, LONGEST_PACE)
        self._interval = min(longest, max(self._pace, (spent - self._spent) / LOOP_SHARE))
        self._spent = spent
        self._deliver([stream for stream in self._streams.values() if not stream.whole])

    def _deliver(self, streams: Iterable[TokenStream]) -> None:
        for stream in streams:
            if stream.deliver():
                self._streams.pop(stream.request_id, None)

    def _fail(self) -> None:
        self.state = "failed"
        for stream in self._streams.values():
            stream.end(EngineFailedError("The engine failed while this request was open."))
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
