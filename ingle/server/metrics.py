"""What the server counts about itself, and its Prometheus page.

Counting must cost nothing that shows: a step's events share one reading of the clock, an event adds
to one histogram, and all else is counted once a request or read off the engine when someone asks.
Labels hold names from the route table, statuses and reasons; never contents, keys or ids.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from time import perf_counter

from ingle.engine.request import TokenEvent
from ingle.engine.stats import EngineStats
from ingle.server.exchange import Exchange

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
RATE_SECONDS = 10.0  # least window of the tokens-per-second gauge

# Upper bounds in seconds: half-decades, wide enough for a nano model and for a paged giant.
WAIT_BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
TOKEN_BOUNDS = (0.0003, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0, 10.0)

Labels = tuple[tuple[str, str], ...]
Samples = Iterable[tuple[Labels, float]]


class Histogram:
    """Counts of observations up to each bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def lines(self, name: str, labels: Labels = ()) -> Iterator[str]:
        """Its samples in the text format: cumulative buckets, sum and count."""
        running = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            running += count
            le = "+Inf" if bound == float("inf") else f"{bound:g}"
            yield _line(f"{name}_bucket", (*labels, ("le", le)), running)
        yield _line(f"{name}_sum", labels, self.total)
        yield _line(f"{name}_count", labels, running)


class Metrics:
    """The counters of one server; all are written on its event loop."""

    def __init__(self) -> None:
        self.first_token = Histogram(WAIT_BOUNDS)
        self.between_tokens = Histogram(TOKEN_BOUNDS)
        self.queue = Histogram(WAIT_BOUNDS)
        self.seconds: dict[str, Histogram] = {}
        self.requests: Counter[tuple[str, str, str]] = Counter()
        self.finished: Counter[str] = Counter()
        self.limited: Counter[str] = Counter()
        self.rate = Rate()

    def count_request(self, exchange: Exchange) -> None:
        """Count an HTTP request that has ended."""
        method = exchange.method if exchange.method in METHODS else "other"
        self.requests[exchange.route, method, str(exchange.status)] += 1
        histogram = self.seconds.get(exchange.route)
        if histogram is None:  # as many as there are routes
            histogram = self.seconds[exchange.route] = Histogram(WAIT_BOUNDS)
        histogram.observe(perf_counter() - exchange.started)


class Rate:
    """Tokens a second between two readings of a counter at least RATE_SECONDS apart."""

    def __init__(self) -> None:
        self._older = self._newer = (perf_counter(), 0)

    def sample(self, total: int, now: float) -> None:
        """Take a reading; called by the service's heartbeat."""
        if now - self._newer[0] >= RATE_SECONDS / 2:
            self._older, self._newer = self._newer, (now, total)

    def __call__(self, total: int, now: float) -> float:
        then, before = self._older
        return (total - before) / max(now - then, 1e-3)


class Meter:
    """Times one engine request: its first token, the gaps between the others, its end."""

    __slots__ = ("_ended", "_exchange", "_last", "_metrics", "_prompt", "_started", "_tokens")

    def __init__(self, metrics: Metrics, exchange: Exchange | None, prompt: int) -> None:
        self._metrics, self._exchange, self._prompt = metrics, exchange, prompt
        self._started = perf_counter() if exchange is None else exchange.started
        self._last = 0.0
        self._tokens = 0
        self._ended = False

    def count(self, event: TokenEvent, now: float) -> None:
        """Take one event that the engine produced at `now`."""
        new = event.completion_tokens - self._tokens
        if new > 0:
            if self._tokens:
                self._metrics.between_tokens.observe((now - self._last) / new, new)
            else:
                self._first(event, now)
            self._last = now
            self._tokens = event.completion_tokens
        if event.finish_reason is not None:
            self.end(event.finish_reason, event.cached_tokens)

    def end(self, reason: str, cached: int = 0) -> None:
        """Book the request, once: its last event may already wait when someone cuts it short."""
        if self._ended:
            return
        self._ended = True
        self._metrics.finished[reason] += 1
        if self._exchange is not None:
            self._exchange.finish(self._prompt, cached, self._tokens, reason)

    def _first(self, event: TokenEvent, now: float) -> None:
        self._metrics.first_token.observe(now - self._started)
        self._metrics.queue.observe(event.queue_seconds)
        if self._exchange is not None and self._exchange.first_token is None:
            self._exchange.first_token = now


def page(
    metrics: Metrics,
    stats: EngineStats,
    streams: int,
    connections: tuple[int, Counter[str]],
    bandwidth: float = 0.0,
) -> str:
    """Everything as Prometheus text.

    connections: how many are open, and those refused by why. bandwidth: what the machine reads from
    memory in a second, as measured at the start; 0 if it was not.
    """
    lines = [
        *_requests(metrics, streams, connections),
        *_engine(metrics, stats),
        *(_memory(stats, bandwidth) if bandwidth else ()),
    ]
    return "\n".join(lines) + "\n"


def _requests(
    metrics: Metrics, streams: int, connections: tuple[int, Counter[str]]
) -> Iterator[str]:
    yield from _counter(
        "http_requests", "HTTP requests that have ended.",
        [((("route", r), ("method", m), ("status", s)), n)
         for (r, m, s), n in sorted(metrics.requests.items())],
    )  # fmt: skip
    name = _head("request_seconds", "histogram", "From the head of a request to its end.")
    yield from name[1:]
    for route, histogram in sorted(metrics.seconds.items()):
        yield from histogram.lines(name[0], (("route", route),))
    for histogram, what, text in (
        (metrics.first_token, "time_to_first_token_seconds", "From the head to the first token."),
        (metrics.between_tokens, "inter_token_seconds", "Between tokens of one answer."),
        (metrics.queue, "queue_seconds", "From submission to the first step of the engine."),
    ):
        name = _head(what, "histogram", text)
        yield from name[1:]
        yield from histogram.lines(name[0])
    yield from _counter(
        "answers", "Engine requests that have ended, by reason.", _by("reason", metrics.finished)
    )
    yield from _counter(
        "rate_limited", "Requests refused because a client was over a limit.",
        _by("limit", metrics.limited),
    )  # fmt: skip
    yield from _gauge("open_streams", "Answers under way, running or waiting.", streams)
    yield from _gauge("open_connections", "Open client connections.", connections[0])
    yield from _counter(
        "connections_refused", "Connections closed by the server for cause.",
        _by("reason", connections[1]),
    )  # fmt: skip


def _engine(metrics: Metrics, stats: EngineStats) -> Iterator[str]:
    yield from _gauge("requests_running", "Requests in the engine's batch.", stats.running)
    yield from _gauge("requests_waiting", "Requests in the engine's queue.", stats.waiting)
    pages = {
        "used": stats.pages_used,
        "cached": stats.pages_cached,
        "free": stats.pages_total - stats.pages_used - stats.pages_cached,
    }
    yield from _family("cache_pages", "gauge", "Pages of the cache.", _by("state", pages))
    for name, value, text in (
        ("prompt_tokens", stats.prompt_tokens, "Tokens of prompts that were begun."),
        ("cached_prompt_tokens", stats.cached_tokens, "Those found in the prefix cache."),
        ("generated_tokens", stats.generated_tokens, "Tokens generated."),
        ("preemptions", stats.preemptions, "Sequences put back because the cache was full."),
        ("engine_steps", stats.steps, "Steps of the engine."),
    ):
        yield from _counter(name, text, [((), value)])
    now = perf_counter()
    yield from _gauge(
        "generated_tokens_per_second", "Over the last 10 to 20 seconds.",
        metrics.rate(stats.generated_tokens, now),
    )  # fmt: skip
    yield from _gauge("step_seconds", "Length of a step, moving average.", stats.step_seconds)
    for name, counts, text in (
        ("draft_tokens", stats.drafted, "Drafts verified, by position after the last token."),
        ("accepted_draft_tokens", stats.accepted, "Drafts that held, by position."),
    ):
        by = {str(position): count for position, count in enumerate(counts, 1)}
        yield from _counter(name, text, _by("position", by))


def _memory(stats: EngineStats, bandwidth: float) -> Iterator[str]:
    yield from _gauge(
        "memory_bandwidth_bytes_per_second", "Measured at the start, all threads reading.",
        bandwidth,
    )  # fmt: skip
    yield from _gauge(
        "step_read_bytes", "Weights and cache that a step reads, worked out; moving average.",
        stats.step_bytes,
    )  # fmt: skip
    share = stats.step_bytes / stats.step_seconds / bandwidth if stats.step_seconds else 0.0
    yield from _gauge(
        "memory_bandwidth_share",
        "Share of it that recent steps used; above 1 if the processor's cache holds the model.",
        share,
    )


def _by(label: str, counts: dict[str, int]) -> Samples:
    return [(((label, value),), count) for value, count in sorted(counts.items())]


def _counter(name: str, text: str, samples: Samples) -> Iterator[str]:
    return _family(f"{name}_total", "counter", text, samples)


def _gauge(name: str, text: str, value: float) -> Iterator[str]:
    return _family(name, "gauge", text, [((), value)])


def _family(name: str, kind: str, text: str, samples: Samples) -> Iterator[str]:
    full, *head = _head(name, kind, text)
    yield from head
    for labels, value in samples:
        yield _line(full, labels, value)


def _head(name: str, kind: str, text: str) -> tuple[str, str, str]:
    full = f"ingle_{name}"
    return full, f"# HELP {full} {text}", f"# TYPE {full} {kind}"


def _line(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{label}="{_escape(text)}"' for label, text in labels)
    return f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
