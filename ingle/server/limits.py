"""How much one client may ask for: requests and tokens a minute, requests at a time.

The rule. A request takes one from the bucket of requests when it arrives and, once its prompt is
encoded, the prompt's tokens from the bucket of tokens; a bucket that does not hold enough refuses.
(A prompt longer than the whole bucket passes when the bucket is full; each of `n` choices pays its
prompt.) Generated tokens are taken when they are known, at the end, and may leave the bucket in
debt: until that is paid, every request is refused. So a burst overshoots by at most the answers
that run at the same time. What the server itself turned away (429, 5xx) is given back; the prompt
of an answer that failed too.
Buckets fill steadily, a full one holds a minute's worth.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Literal

from ingle.server.errors import HTTPError

Kind = Literal["requests", "tokens", "concurrency"]
Headers = list[tuple[bytes, bytes]]

ROUNDING = 1e-6  # of a request or token: whoever waited as told is not sent away for a float


@dataclass(frozen=True)
class Limits:
    """Requests and tokens (of prompts and answers) a minute, requests at a time; None: no limit."""

    requests: int | None = None
    tokens: int | None = None
    concurrency: int | None = None

    @property
    def any(self) -> bool:
        return (self.requests, self.tokens, self.concurrency) != (None, None, None)


class Bucket:
    """Fills at `limit` a minute up to `limit`; `take` may leave it in debt."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._clock = clock
        self._level, self._at = float(limit), clock()

    @property
    def level(self) -> float:
        now = self._clock()
        self._level = min(self.limit, self._level + (now - self._at) * self.limit / 60)
        self._at = now
        return self._level

    def take(self, amount: float) -> None:
        """Take out, or with a negative amount put back."""
        self._level = min(self.limit, self.level - amount)

    def wait(self, amount: float) -> float:
        """Seconds until it holds the amount, or is full if the amount is more than it can hold."""
        short = min(amount, self.limit) - self.level
        return short * 60 / self.limit if short > ROUNDING else 0.0


class Account:
    """What one client has taken; all calls come from the event loop.

    refused: counts what was refused, by kind. A refusal is HTTPError 429, with the seconds after
    which the same request fits if nothing else comes.
    """

    def __init__(
        self,
        limits: Limits,
        refused: Counter[str] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._requests = None if limits.requests is None else Bucket(limits.requests, clock)
        self._tokens = None if limits.tokens is None else Bucket(limits.tokens, clock)
        self._concurrency = limits.concurrency
        self._open = 0
        self._refused = Counter[str]() if refused is None else refused

    def enter(self) -> None:
        """Begin a request; HTTPError 429 if the client is over one of its limits."""
        if self._concurrency is not None and self._open >= self._concurrency:
            # when a place will be free is not known: a second is a good time to ask again
            limit = f"{self._concurrency} requests at a time"
            raise self._refusal("concurrency", limit, 1.0)
        if self._requests is not None and (wait := self._requests.wait(1)) > 0:
            raise self._refusal("requests", f"{self._requests.limit} requests a minute", wait)
        if self._tokens is not None and (wait := self._tokens.wait(1)) > 0:
            raise self._refusal("tokens", f"{self._tokens.limit} tokens a minute", wait)
        if self._requests is not None:
            self._requests.take(1)
        self._open += 1

    def leave(self, refund: bool) -> None:
        """End a request that entered; refund: it was turned away through no fault of its own."""
        self._open -= 1
        if refund and self._requests is not None:
            self._requests.take(-1)

    def take_prompt(self, tokens: int) -> None:
        """Pay for a prompt before it is computed; HTTPError 429 if it does not fit now."""
        if self._tokens is None:
            return
        if (wait := self._tokens.wait(tokens)) > 0:
            raise self._refusal("tokens", f"{self._tokens.limit} tokens a minute", wait)
        self._tokens.take(tokens)

    def take_tokens(self, tokens: int) -> None:
        """Pay for generated tokens, on credit if need be; a negative number is given back."""
        if self._tokens is not None:
            self._tokens.take(tokens)

    def _refusal(self, kind: Kind, limit: str, seconds: float) -> HTTPError:
        self._refused[kind] += 1
        wait = max(1, math.ceil(seconds))
        return HTTPError(
            429,
            f"Rate limit reached: {limit}. Try again in {wait} s.",
            "rate_limit_exceeded",
            "rate_limit_error",
            headers={"Retry-After": str(wait)},
        )

    def headers(self) -> Headers:
        """The six x-ratelimit headers OpenAI's clients read, for those limits there are."""
        named = (("requests", self._requests), ("tokens", self._tokens))
        return [
            (f"x-ratelimit-{what}-{name}".encode(), value.encode())
            for name, bucket in named
            if bucket is not None
            for what, value in (
                ("limit", str(bucket.limit)),
                ("remaining", str(max(0, math.floor(bucket.level)))),
                ("reset", spell_seconds(bucket.wait(bucket.limit))),
            )
        ]


def spell_seconds(seconds: float) -> str:
    """A duration as OpenAI writes it: 0s, 120ms, 1.5s, 6m0s."""
    milliseconds = math.ceil(seconds * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    spelled = f"{rest / 1000:g}s"
    return f"{minutes}m{spelled}" if minutes else spelled
