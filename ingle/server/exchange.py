"""One HTTP request in the server's own books: who asked, what it cost, how it ended.

It holds numbers and names from the route table and from the key file; never a path, a query, a
header or a text of the request.
"""

from __future__ import annotations

import secrets
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter

from ingle.server.limits import Account

UNKNOWN_ROUTE = "unknown"
CLIENT_LEFT = 499  # nginx's word for a client that went before it had an answer

# Each request runs in a task of its own and sees only its own value. The engine's side of a request
# is booked through it, so that no dialect has to know of keys, limits or metrics.
CURRENT: ContextVar[Exchange | None] = ContextVar("ingle-exchange", default=None)


@dataclass(slots=True)
class Exchange:
    """Times are seconds of `perf_counter`. status: None until the answer starts. left: the client
    went before the answer was complete. key: the name of its key, None without one. charged: prompt
    tokens taken from its account."""

    method: str
    route: str = UNKNOWN_ROUTE
    key: str | None = None
    account: Account | None = None
    id: str = field(default_factory=lambda: f"req_{secrets.token_hex(12)}")
    started: float = field(default_factory=perf_counter)
    status: int | None = None
    complete: bool = False
    left: bool = False
    first_token: float | None = None
    charged: int = 0
    open: int = 1  # itself and what it has in the engine: a background answer outlives its request
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str | None = None

    def take_prompt(self, tokens: int) -> None:
        """Book a prompt that goes to the engine; HTTPError 429 if its client is over the limit."""
        if self.account is not None:
            self.account.take_prompt(tokens)
            self.charged += tokens
        self.open += 1

    def drop_prompt(self, tokens: int) -> None:
        """Take back `take_prompt`: the engine refused it."""
        self._give_back(tokens)
        self.open -= 1

    def finish(self, prompt: int, cached: int, completion: int, reason: str) -> None:
        """Book the end of one engine request; there may be several in an exchange."""
        self.prompt_tokens += prompt
        self.cached_tokens += cached
        self.completion_tokens += completion
        self.finish_reason = reason
        if reason == "error":
            self._give_back(prompt)
        if self.account is not None:
            self.account.take_tokens(completion)
        self.leave()

    def leave(self) -> None:
        """Something of it is over; with the last, its place is free again. What the server turned
        away (429, 5xx) is given back."""
        self.open -= 1
        if self.account is None or self.open:
            return
        turned_away = self.status is not None and (self.status == 429 or self.status >= 500)
        self.account.leave(refund=turned_away)
        if turned_away:
            self._give_back(self.charged)

    def _give_back(self, tokens: int) -> None:
        if self.account is not None:
            self.account.take_tokens(-tokens)
            self.charged -= tokens
