"""Who runs in the next step: decoding sequences first, then prefill chunks under a token budget."""

from __future__ import annotations

from collections import deque
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingle.engine.prefix import PrefixCache
from ingle.engine.sequence import Sequence
from ingle.models.batch import PAGE_TOKENS


class Work(NamedTuple):
    """One sequence's part of a step: its next `known` tokens that are known, then its drafts."""

    sequence: Sequence
    known: int

    @property
    def samples(self) -> bool:
        """Whether the last known token is reached, so that a new one can be sampled."""
        return self.known == self.sequence.pending


class Scheduler:
    """First come, first served, by tokens per step and by pages.

    A sequence is admitted when the cache has room for all it knows plus a page of growth for each
    running one. When a growing sequence finds no page, the youngest is pre-empted: its pages are
    released, it goes back to the front of the queue and is computed again. Sampling is keyed by
    seed and position, so its output is unchanged.
    """

    def __init__(self, prefix: PrefixCache, table_SP: NDArray[np.int32], token_budget: int) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # oldest first
        self.preemptions = self.prompt_tokens = self.cached_tokens = 0
        self._prefix = prefix
        self._table_SP = table_SP
        self._lanes = list(range(len(table_SP) - 1, -1, -1))
        self._budget = token_budget

    def schedule(self) -> list[Work]:
        """Choose the work of one step; pages for every row of it are allocated on return."""
        before = self.preemptions
        work = self._decodes()
        left = self._budget - sum(1 + len(w.sequence.drafts) for w in work)
        for sequence in self.running:
            if left > 0 and sequence.pending > 1:
                count = min(sequence.pending, left)
                work.append(Work(sequence, count))
                left -= count
        # Whoever was just pre-empted must not take back at once what the others were given.
        while left > 0 and self.waiting and self._lanes and self.preemptions == before:
            sequence = self.waiting[0]
            if not self._admit(sequence):
                break
            self.waiting.popleft()
            count = min(sequence.pending, left)
            work.append(Work(sequence, count))
            left -= count
        return work

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out for good and give back its pages."""
        if sequence.lane >= 0:
            self._stop(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def _decodes(self) -> list[Work]:
        work: list[Work] = []
        left = self._budget
        decoding = [sequence for sequence in self.running if sequence.pending == 1]
        for index, sequence in enumerate(decoding):
            # The youngest go first, so a victim is never one that has its place in this step.
            while sequence.lane >= 0 and not self._grow(sequence, len(sequence.tokens)):
                self._preempt(self.running[-1])
            if sequence.lane < 0:
                continue
            room = left - (len(decoding) - index)  # everyone still to come needs a row
            del sequence.drafts[max(0, room) :]
            while not self._grow(sequence, len(sequence.tokens) + len(sequence.drafts)):
                sequence.drafts.pop()  # a draft is not worth a pre-emption
            left -= 1 + len(sequence.drafts)
            work.append(Work(sequence, 1))
        return work

    def _grow(self, sequence: Sequence, length: int) -> bool:
        """Give the sequence pages for `length` positions; False when there are not enough."""
        while len(sequence.pages) * PAGE_TOKENS < length:
            page = self._prefix.allocate()
            if page is None:
                return False
            self._table_SP[sequence.lane, len(sequence.pages)] = page
            sequence.pages.append(page)
        return True

    def _admit(self, sequence: Sequence) -> bool:
        hits = self._prefix.match(sequence)
        need = -(-len(sequence.tokens) // PAGE_TOKENS) - len(hits)
        if self._prefix.available < need + len(self.running):
            self._prefix.release(hits)
            return False
        sequence.lane = self._lanes.pop()
        sequence.pages = hits
        sequence.published = len(hits)
        sequence.computed = len(hits) * PAGE_TOKENS
        sequence.mtp_computed = sequence.computed if self._prefix.has_mtp(hits) else -1
        if sequence.cached_tokens is None:  # hits on its own pages after a pre-emption do not count
            sequence.cached_tokens = sequence.computed
            sequence.queue_seconds = perf_counter() - sequence.submitted
            self.prompt_tokens += len(sequence.tokens)
            self.cached_tokens += sequence.computed
        self._table_SP[sequence.lane, : len(hits)] = hits
        grown = self._grow(sequence, len(sequence.tokens))
        assert grown, "pages were counted as available and could not be had"
        self.running.append(sequence)
        return True

    def _preempt(self, victim: Sequence) -> None:
        self._stop(victim)
        self.waiting.appendleft(victim)
        self.preemptions += 1

    def _stop(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._table_SP[sequence.lane] = -1
        self._lanes.append(sequence.lane)
        self._prefix.release(sequence.pages)
        sequence.restart()
