"""Who runs in the next step: decoding sequences first, then prefill chunks under a token budget."""

from __future__ import annotations

from collections import deque
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingle.engine.prefix import PrefixCache
from ingle.engine.queue import WaitingLine
from ingle.engine.sequence import Sequence
from ingle.models.batch import PAGE_TOKENS


class Work(NamedTuple):
    """One sequence's part of a step: its next `known` tokens that are known, then its drafts."""

    sequence: Sequence
    known: int


class Scheduler:
    """By priority, client and arrival (see `queue`), by tokens per step and by pages.

    A sequence is admitted when the cache has room for all it knows plus a page of growth for each
    running one. One whose next page is being computed for another right now waits for that page,
    so that equal prompts submitted together are computed once. When a growing sequence finds no
    page, the least of the running ones, the youngest among equals, is pre-empted: its pages are
    released, it goes back to the front of its client's line and is computed again. Sampling is
    keyed by seed and position, so its output is unchanged.
    """

    def __init__(
        self, prefix: PrefixCache, table_SP: NDArray[np.int32], token_budget: int,
        share_tails: bool = False,
    ) -> None:  # fmt: skip
        self.waiting = WaitingLine()
        self.running: list[Sequence] = []  # oldest first
        self.preemptions = self.prompt_tokens = self.cached_tokens = 0
        self._prefix = prefix
        self._table_SP = table_SP
        self._lanes = list(range(len(table_SP) - 1, -1, -1))
        self._budget = token_budget
        self._share_tails = share_tails

    def schedule(self) -> list[Work]:
        """Choose the work of one step; pages for every row of it are allocated on return."""
        before = self.preemptions
        order = self._order()
        work = self._decodes(order)
        left = self._budget - sum(1 + len(w.sequence.drafts) for w in work)
        # Whoever was just pre-empted must not take back at once what the others were given.
        self._prefills(order, work, left, self.preemptions == before)
        return work

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out for good and give back its pages."""
        waits = sequence.lane < 0
        if not waits:
            self._stop(sequence)
        self.waiting.leave(sequence, waits)

    def _order(self) -> list[Sequence]:
        """The running sequences, those to favour first, the older first among equals."""
        if self.waiting.uniform:
            return list(self.running)
        return sorted(self.running, key=self.waiting.rank)

    def _prefills(self, order: list[Sequence], work: list[Work], left: int, admits: bool) -> None:
        """Spend what is left of the budget on prompts: of running sequences and, while there are
        lanes and pages, of waiting ones; who is to be favoured goes first, running before waiting.
        """
        started = deque(sequence for sequence in order if sequence.pending > 1)
        held: list[Sequence] = []
        while left > 0:
            rank = self.waiting.best_rank if admits and self._lanes else None
            if started and (rank is None or self.waiting.rank(started[0]) <= rank):
                sequence = started.popleft()
            elif rank is None:
                break
            else:
                sequence = self.waiting.pop()
                coming = self._is_coming(sequence)
                if coming or not self._admit(sequence):
                    held.append(sequence)
                    admits = coming and len(held) < len(self._table_SP)
                    continue
            count = min(sequence.pending, left)
            again = max(0, min(count, sequence.served - sequence.computed))
            self.waiting.serve(sequence, count - again)  # what a pre-emption cost is not its fault
            work.append(Work(sequence, count))
            left -= count
        for sequence in reversed(held):
            self.waiting.put_back(sequence)

    def _is_coming(self, sequence: Sequence) -> bool:
        """Whether the next page it needs is being computed for a sequence no less important."""
        busy = [other for other in self.running if other.pending > 1]
        if not busy or sequence.scores is not None:
            return False
        missing = self._prefix.missing(sequence)
        return missing is not None and any(
            other.request.priority <= sequence.request.priority
            and self._prefix.will_publish(other, *missing)
            for other in busy
        )

    def _decodes(self, order: list[Sequence]) -> list[Work]:
        """The rows of those that decode; whoever is pre-empted for them is taken out of `order`."""
        work: list[Work] = []
        left = self._budget
        decoding = [sequence for sequence in order if sequence.pending == 1]
        for index, sequence in enumerate(decoding):
            # The last in the order go first, so a victim never has its place in this step.
            while sequence.lane >= 0 and not self._grow(sequence, len(sequence.tokens)):
                self._preempt(order.pop())
            if sequence.lane < 0:
                continue
            room = left - (len(decoding) - index)  # everyone still to come needs a row
            del sequence.drafts[max(0, room) :]
            while not self._grow(sequence, len(sequence.tokens) + len(sequence.drafts)):
                sequence.drafts.pop()  # a draft is not worth a pre-emption
            left -= 1 + len(sequence.drafts)
            work.append(Work(sequence, 1))
        if not self.waiting.uniform:  # accounts matter between clients only
            for sequence, _ in work:
                self.waiting.serve(sequence, 1)
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
        # Scores need every row of the prompt.
        hits = [] if sequence.scores is not None else self._prefix.match(sequence)
        need = -(-len(sequence.tokens) // PAGE_TOKENS) - len(hits)
        if self._prefix.available < need + len(self.running):
            self._prefix.release(hits)
            return False
        sequence.lane = self._lanes.pop()
        sequence.pages = hits
        sequence.published = len(hits)
        sequence.computed = len(hits) * PAGE_TOKENS
        sequence.mtp_computed = sequence.computed if self._prefix.has_mtp(hits) else -1
        self._table_SP[sequence.lane, : len(hits)] = hits
        grown = self._grow(sequence, len(sequence.tokens))
        assert grown, "pages were counted as available and could not be had"
        if self._share_tails and sequence.scores is None:
            copied = self._prefix.copy_tail(sequence, self.running)
            sequence.computed += copied
            if copied:
                sequence.mtp_computed = -1
        if sequence.cached_tokens is None:  # hits on its own pages after a pre-emption do not count
            sequence.cached_tokens = sequence.computed
            sequence.queue_seconds = perf_counter() - sequence.submitted
            self.prompt_tokens += len(sequence.tokens)
            self.cached_tokens += sequence.computed
        self.running.append(sequence)
        return True

    def _preempt(self, victim: Sequence) -> None:
        victim.served = max(victim.served, victim.computed)
        self._stop(victim)
        self.waiting.put_back(victim)
        self.preemptions += 1

    def _stop(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._table_SP[sequence.lane] = -1
        self._lanes.append(sequence.lane)
        self._prefix.release(sequence.pages)
        sequence.restart()
