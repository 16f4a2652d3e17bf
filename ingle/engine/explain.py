"""How much of a prompt the prefix cache holds, and why not more."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ingle.models.batch import PAGE_TOKENS

Reason = Literal["nothing like it was seen", "diverged", "page not full", "evicted", "complete"]
Ids = NDArray[np.int32]

_MOST_TOKENS = 1 << 20  # remembered over all salts: 4 MB


@dataclass(frozen=True)
class PrefixReport:
    """What a prompt would find in the cache now.

    cached_tokens: found, in whole pages of 64 and never the last token. matched_tokens: how far
    the prompt equals the most similar recent request of the same salt, its answer included.
    reason, where the hit ends:
    "complete": every page that a hit can have is there;
    "nothing like it was seen": the first token differs already;
    "diverged": the prompt goes its own way at token `matched_tokens`;
    "page not full": the recent request ended inside a page, and only whole pages are kept; or the
    prompt itself is shorter than one;
    "evicted": pages were computed for it once and had to make room.
    """

    prompt_tokens: int
    cached_tokens: int
    matched_tokens: int
    reason: Reason


class RecentPrompts:
    """The latest sequences of each salt, oldest forgotten first, within a number of tokens."""

    def __init__(self, most_tokens: int = _MOST_TOKENS) -> None:
        self._most = most_tokens
        self._recent: deque[tuple[bytes, Ids]] = deque()
        self._tokens = 0
        self._lock = Lock()

    def add(self, salt: bytes, tokens: list[int]) -> None:
        """Remember what was computed for a request."""
        if not 0 < len(tokens) <= self._most:
            return
        with self._lock:
            self._recent.append((salt, np.array(tokens, np.int32)))
            self._tokens += len(tokens)
            while self._tokens > self._most:
                self._tokens -= len(self._recent.popleft()[1])

    def of(self, salt: bytes) -> list[Ids]:
        """All that is remembered of a salt."""
        with self._lock:
            return [tokens for name, tokens in self._recent if name == salt]

    def clear(self) -> None:
        """Forget everything: for when the weights have changed."""
        with self._lock:
            self._recent.clear()
            self._tokens = 0


def report(prompt: list[int], cached: int, recent: list[Ids]) -> PrefixReport:
    """Compare a prompt with recent sequences; `cached` tokens of it are in the cache."""
    ids = np.array(prompt, np.int32)
    matched, ended = 0, False
    for other in recent:
        common = _common(ids, other)
        if common > matched or (common == matched and common == len(other)):
            matched, ended = common, common == len(other)
    possible = (len(prompt) - 1) // PAGE_TOKENS * PAGE_TOKENS
    matched = max(matched, cached)
    reason: Reason
    if cached == possible and possible:
        reason = "complete"
    elif min(matched, possible) // PAGE_TOKENS * PAGE_TOKENS > cached:
        reason = "evicted"
    elif matched == 0:
        reason = "nothing like it was seen"
    elif not possible or (ended and matched % PAGE_TOKENS):
        reason = "page not full"
    else:
        reason = "diverged"
    return PrefixReport(len(prompt), cached, matched, reason)


def _common(one: Ids, two: Ids) -> int:
    """Length of the common beginning."""
    length = min(len(one), len(two))
    differ = np.flatnonzero(one[:length] != two[:length])
    return int(differ[0]) if len(differ) else length
