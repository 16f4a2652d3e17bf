"""The rows of one step: which tokens are computed, and from which of them a token is sampled."""

from __future__ import annotations

from typing import NamedTuple

from ingle.engine.runner import Span
from ingle.engine.sampler import Row
from ingle.engine.scheduler import Work


class Part(NamedTuple):
    """One sequence's rows in a step: hidden rows `first ..`, sampled rows `sampled ..`."""

    work: Work
    first: int
    sampled: int  # -1: nothing is sampled, as in a chunk that does not reach the last known token
    drafts: list[int]


class Plan(NamedTuple):
    """A step. rows[i] is sampled from the hidden row logit_rows[i]."""

    parts: list[Part]
    spans: list[Span]
    rows: list[Row]
    logit_rows: list[int]

    @property
    def decode_only(self) -> bool:
        """Whether every computed row is sampled."""
        return len(self.rows) == sum(len(span.tokens) for span in self.spans)

    @property
    def verified(self) -> int:
        """Sequences whose drafts are looked at."""
        return sum(bool(part.drafts) for part in self.parts)


def lay_out(work: list[Work]) -> Plan:
    """Take over the drafts of the sequences and lay out all rows."""
    parts, spans = [], []
    rows: list[Row] = []
    logit_rows: list[int] = []
    first = 0
    for item in work:
        sequence, known = item
        start, drafts = sequence.computed, sequence.drafts
        tokens = sequence.tokens[start : start + known] + drafts
        sampled = -1
        length = len(sequence.tokens)
        if known == length - start and length < sequence.limit:  # reaches the last known token
            sampled, state = len(rows), sequence.sampling
            for ahead in range(len(drafts) + 1):
                logit_rows.append(first + known - 1 + ahead)
                rows.append(Row(state, length + ahead, drafts[:ahead]))
        parts.append(Part(item, first, sampled, drafts))
        spans.append(Span(sequence.lane, start, tokens))
        sequence.drafts = []
        first += len(tokens)
    return Plan(parts, spans, rows, logit_rows)
