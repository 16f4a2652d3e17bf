"""Speculative decoding with the model's own MTP module (arXiv 2412.19437, section 2.2).

A draft is sampled like any token: same filters, same noise of its position, but from the MTP
module's distribution q. The next step computes the target distribution p at the drafted positions
too and samples from it with that noise; the draft is accepted iff it equals the target's sample.
What is emitted is always the target's own sample, so drafting cannot change a single token,
greedy or sampled, and the marginal is exactly p. Rejection sampling (arXiv 2211.17192) accepts
with probability 1 - TV(p, q) and is lossless in distribution only: the tokens depend on the
drafts. Shared noise accepts with at least (1 - TV) / (1 + TV) (arXiv 2408.07978), never more than
1 - TV, and keeps "same request, same seed, same tokens".

Legend: N rows of a step, D model width.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

from ingle.engine.runner import Runner, Span, pick
from ingle.engine.sampler import Row, Sample, Sampler
from ingle.engine.sequence import Sequence

Mode = Literal["auto", "on", "off"]
Phase = Literal["draft", "follow", "off"]


class Computed(NamedTuple):
    """Rows `first .. first + length - 1` of a step's hidden states, whose tokens were accepted:
    positions `start .. start + length - 1` of the sequence."""

    sequence: Sequence
    first: int
    start: int
    length: int


class Speculator:
    """Keeps the MTP module's layer of the cache in step and drafts the tokens to verify next.

    The MTP row of position p needs the hidden state of p and the token at p + 1, so it runs after
    the token was sampled. A sequence that misses a position drafts no more.
    """

    def __init__(self, runner: Runner, sampler: Sampler, length: int) -> None:
        self.drafted = [0] * length  # per position ahead: how many drafts were verified
        self.accepted = [0] * length
        self._length = length
        self._runner = runner
        self._sampler = sampler

    def record(self, drafts: int, accepted: int) -> None:
        """Count one sequence's verified drafts, of which the first `accepted` were right."""
        for position in range(min(drafts, accepted + 1)):
            self.drafted[position] += 1
        for position in range(accepted):
            self.accepted[position] += 1

    def advance(self, computed: list[Computed], hidden_ND: Tensor, phase: Phase) -> None:
        """Run the MTP module over the accepted rows; in phase "draft" also make new drafts."""
        if phase == "off":
            return
        computed = [c for c in computed if c.sequence.mtp_computed == c.start]
        if not computed:
            return
        rows: list[int] = []
        spans = []
        for sequence, first, start, length in computed:
            rows += range(first, first + length)
            tokens = sequence.tokens[start + 1 : start + length + 1]
            spans.append(Span(sequence.lane, start, tokens))
            sequence.mtp_computed = start + length
        out_ND = self._runner.forward_mtp(pick(hidden_ND, rows), spans)
        if phase == "draft":
            self._draft(computed, out_ND)

    def _draft(self, computed: list[Computed], out_ND: Tensor) -> None:
        last = -1
        drafting: list[tuple[Sequence, int]] = []  # and the row that predicts its next draft
        for sequence, _, _, length in computed:
            last += length
            if sequence.pending == 1 and _room(sequence) > 0:
                drafting.append((sequence, last))
        for depth in range(self._length):
            if not drafting:
                return
            logits_RV = self._runner.mtp_logits(out_ND, [row for _, row in drafting])
            samples = self._sampler.sample(logits_RV, [_row(s) for s, _ in drafting])
            for (sequence, _), sample in zip(drafting, samples, strict=True):
                if isinstance(sample, Sample):
                    sequence.drafts.append(sample.token)
            if depth + 1 == self._length:
                return
            drafting = [(s, r) for s, r in drafting if len(s.drafts) > depth and _deeper(s)]
            if drafting:
                spans = [Span(s.lane, _ahead(s) - 2, s.drafts[-1:]) for s, _ in drafting]
                out_ND = self._runner.forward_mtp(pick(out_ND, [r for _, r in drafting]), spans)
                drafting = [(s, index) for index, (s, _) in enumerate(drafting)]


def _ahead(sequence: Sequence) -> int:
    """Position of the token that comes after all drafts so far."""
    return len(sequence.tokens) + len(sequence.drafts)


def _room(sequence: Sequence) -> int:
    """How many more drafts could still matter before the sequence's limit."""
    return sequence.limit - 1 - _ahead(sequence)


def _deeper(sequence: Sequence) -> bool:
    """Whether there is use and a page for the MTP row that one more draft needs."""
    return _room(sequence) > 0 and sequence.covers(_ahead(sequence) - 2)


def _row(sequence: Sequence) -> Row:
    return Row(sequence.sampling, _ahead(sequence), tuple(sequence.drafts))


class DraftController:
    """Decides by the clock whether drafting pays, per power-of-two bucket of batch size.

    Measures seconds per emitted token of decode-only steps: a step that verified drafts counts
    whole, one that did not counts without its MTP part. Both kinds are tried for `PROBE` steps,
    then the faster is used and the other looked at again every `PERIOD` steps. Tokens do not
    depend on the choice. Phases: "draft"; "follow" (keep the MTP layer in step without drafting,
    since drafting may come back); "off" (do not run the MTP module at all).
    """

    PROBE = 24
    PERIOD = 500
    SMOOTHING = 0.15

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._buckets: dict[int, _Timing] = {}

    def phase(self, sequences: int) -> Phase:
        """What to do in a step of this many sequences."""
        if self._mode != "auto":
            return "draft" if self._mode == "on" else "off"
        timing = self._bucket(sequences)
        if timing.probes_left[True] > 0:
            return "draft"
        if timing.probes_left[False] > 0:
            return "follow"
        return "draft" if timing.pays else "off"

    def record(
        self, sequences: int, verified: int, emitted: int, seconds: float, mtp_seconds: float
    ) -> None:
        """Take the measurement of one decode-only step in which `verified` sequences had drafts."""
        if self._mode != "auto" or not emitted:
            return
        timing = self._bucket(sequences)
        timing.steps += 1
        for kind in (True, False):
            if timing.probes_left[kind]:
                timing.probes_left[kind] -= 1
                break
        if timing.steps % self.PERIOD == 0:
            timing.probes_left[not timing.pays] = self.PROBE
        if 0 < 2 * verified < sequences:  # a mixture says little about either kind
            return
        drafting = verified > 0
        cost = (seconds if drafting else seconds - mtp_seconds) / emitted
        old = timing.seconds_per_token[drafting]
        timing.seconds_per_token[drafting] = (
            cost if old is None else old + self.SMOOTHING * (cost - old)
        )

    def pays(self, sequences: int) -> bool | None:
        """The present judgement for this batch size; None before both kinds were measured."""
        timing = self._bucket(sequences)
        return None if None in timing.seconds_per_token.values() else timing.pays

    def _bucket(self, sequences: int) -> _Timing:
        key = sequences.bit_length()
        if key not in self._buckets:
            self._buckets[key] = _Timing(self.PROBE)
        return self._buckets[key]


class _Timing:
    """Measurements of one bucket, keyed by whether drafts were verified."""

    def __init__(self, probe: int) -> None:
        self.seconds_per_token: dict[bool, float | None] = {True: None, False: None}
        self.probes_left = {True: probe, False: probe}
        self.steps = 0

    @property
    def pays(self) -> bool:
        drafting, plain = self.seconds_per_token[True], self.seconds_per_token[False]
        return drafting is None or plain is None or drafting <= plain
