"""From logits to tokens: grammar, penalties, bias, temperature, filters, log-probabilities.

Every choice is a race: the token with the largest p / E wins, where E are exponential variates
keyed by (seed, position, token id). That is the Gumbel-max trick, so a token wins with exactly its
probability, and the same request gives the same tokens whatever else is in the batch.

Legend: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingle.engine.grammar_state import GrammarFailure
from ingle.engine.noise import exponential, random_bits, stream_key, token_offsets
from ingle.engine.request import SamplingParams

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


class Sample(NamedTuple):
    """A chosen token. Log-probabilities are those of the model itself: log_softmax of the raw
    logits, before penalties, bias, temperature and filters; where SamplingParams.policy asks,
    those of the distribution drawn from, with the ids that filters kept in it."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    kept: tuple[int, ...] = ()


@dataclass(frozen=True)
class SamplingFailure:
    """Why one row could not be sampled; the other rows of the batch are not affected."""

    message: str


_COLDEST = 1e-6  # lower temperatures divide fp32 logits to the same end
_LEAST = 1e-45  # the smallest fp32 above zero: what a grammar forbids weighs nothing
_NOT_FINITE = SamplingFailure("The model's output was not a finite number.")


class SamplingState:
    """What the sampler knows of one request: its parameters, seed and the tokens it has produced.

    plain: the likeliest token wins and nothing else is asked, which allows a batched argmax.
    """

    def __init__(self, params: SamplingParams, prompt: Items[int], seed: int) -> None:
        self.params = params
        self.seed = seed
        self.filtered = params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0
        self._penalised = bool(
            params.presence_penalty or params.frequency_penalty or params.repetition_penalty != 1.0
        )
        self.grammar = None if params.grammar is None else params.grammar.start()
        self.edited = self._penalised or bool(params.logit_bias) or self.grammar is not None
        self.plain = params.temperature == 0.0 and params.logprobs is None and not self.edited
        self._counts: dict[int, int] = {}
        repeat = params.repetition_penalty != 1.0
        self._prompt: Ids = np.unique(np.array(prompt if repeat else [], dtype=np.int64))
        self._bias_ids: Ids = np.array(list(params.logit_bias), dtype=np.int64)
        self._bias: Floats = np.array(list(params.logit_bias.values()), dtype=np.float32)

    def observe(self, token: int) -> None:
        """Count a token that was generated."""
        if self._penalised:
            self._counts[token] = self._counts.get(token, 0) + 1
        if self.grammar is not None:
            self.grammar.commit(token)

    def edit(self, logits_V: Floats, ahead: Items[int]) -> None:
        """Apply grammar, penalties and bias, in place; `ahead` are drafts taken as generated.

        The repetition penalty (arXiv 1909.05858, prompt included) comes first, as in transformers;
        presence and frequency count generated tokens only, as in OpenAI's interface. Raises
        GrammarFailure.
        """
        params = self.params
        if self.grammar is not None:
            self.grammar.restrict(logits_V, ahead)
        if self._penalised:
            counts = self._counts
            if ahead:
                counts = dict(counts)
                for token in ahead:
                    counts[token] = counts.get(token, 0) + 1
            ids: Ids = np.fromiter(counts, np.int64, len(counts))
            if params.repetition_penalty != 1.0:
                seen = np.union1d(self._prompt, ids)
                values, factor = logits_V[seen], np.float32(params.repetition_penalty)
                logits_V[seen] = np.where(values < 0, values * factor, values / factor)
            times = np.fromiter(counts.values(), np.float32, len(counts))
            logits_V[ids] -= params.presence_penalty + np.float32(params.frequency_penalty) * times
        logits_V[self._bias_ids] += self._bias


class Row(NamedTuple):
    """One row of logits to sample: whose, for which position, and which drafts lie before it."""

    state: SamplingState
    position: int
    ahead: Items[int] = ()


class Sampler:
    """Chooses one token per row; a row's outcome depends on that row only."""

    def __init__(self, vocab: int) -> None:
        self._offsets_V = token_offsets(vocab)

    def sample(self, logits_RV: Floats, rows: list[Row]) -> list[Sample | SamplingFailure]:
        """Choose a token for each row of logits.

        Order: grammar, penalties, bias, temperature, top-k, top-p over what top-k left, min-p
        relative to the likeliest token.
        """
        states = [row.state for row in rows]
        if all(state.plain for state in states):
            return _argmax(logits_RV)
        edited_RV = logits_RV
        failures: dict[int, SamplingFailure] = {}
        if any(state.edited for state in states):
            edited_RV = logits_RV.copy()
            for index, row in enumerate(rows):
                if row.state.edited:
                    try:
                        row.state.edit(edited_RV[index], row.ahead)
                    except GrammarFailure as error:
                        failures[index] = SamplingFailure(str(error))
        samples = _argmax(edited_RV)
        for index, failure in failures.items():
            samples[index] = failure
        good = [i for i, sample in enumerate(samples) if isinstance(sample, Sample)]
        drawn = [i for i in good if states[i].params.temperature > 0]
        if drawn:
            for index, sample in zip(drawn, self._draw(edited_RV, drawn, rows), strict=True):
                samples[index] = sample
        asked = [i for i in good if states[i].params.logprobs is not None]
        if asked:
            _add_logprobs(samples, logits_RV, asked, states)
        return samples

    def _draw(self, logits_RV: Floats, drawn: list[int], rows: list[Row]) -> list[Sample]:
        """Race the tokens of each drawn row; bulk work in fp32, the final in fp64."""
        states = [rows[i].state for i in drawn]
        keys = [stream_key(rows[i].state.seed, rows[i].position) for i in drawn]
        keys_R = np.array(keys, dtype=np.uint64)
        heat_R = np.array([max(s.params.temperature, _COLDEST) for s in states], dtype=np.float32)
        x_RV = logits_RV if len(drawn) == len(rows) else logits_RV[drawn]
        x_RV = (x_RV - x_RV.max(1, keepdims=True)) / heat_R[:, None]
        weights_RV = np.exp(x_RV)
        chosen: list[Ids] = []
        if any(state.filtered for state in states):
            chosen = [
                candidates(weights_RV[i], state.params)
                if state.filtered
                else self._front_runners(weights_RV[i : i + 1], keys_R[i : i + 1])[1]
                for i, state in enumerate(states)
            ]
            row_of = np.repeat(np.arange(len(drawn)), [len(ids) for ids in chosen])
            ids = np.concatenate(chosen)
        else:
            row_of, ids = self._front_runners(weights_RV, keys_R)
        times = exponential(random_bits(keys_R[row_of], self._offsets_V[ids]))
        scores = np.exp(x_RV[row_of, ids].astype(np.float64)) / times
        starts = np.searchsorted(row_of, np.arange(len(drawn) + 1)).tolist()
        tokens = [int(ids[a + scores[a:b].argmax()]) for a, b in pairwise(starts)]
        if not any(state.params.policy for state in states):
            return [Sample(token) for token in tokens]
        norms = np.log(weights_RV.sum(1, dtype=np.float64)).tolist()
        samples = []
        for i, (state, token) in enumerate(zip(states, tokens, strict=True)):
            kept = chosen[i] if state.filtered else None
            if kept is not None:
                norms[i] = float(np.log(weights_RV[i, kept].sum(dtype=np.float64)))
            logprob = float(x_RV[i, token]) - norms[i] if state.params.policy else None
            samples.append(Sample(token, logprob, (), () if kept is None else tuple(kept.tolist())))
        return samples

    def _front_runners(self, weights_RV: Floats, keys_R: NDArray[np.uint64]) -> tuple[Ids, Ids]:
        """The few tokens per row that can still win, as (rows, ids) in row order.

        Needs no logarithm per token: with u = bits / 2**53, E > u, so p / u bounds a token's score
        from above. Whoever's bound lies below the score of the best bound's own token is out.
        """
        uniform_RV = random_bits(keys_R[:, None], self._offsets_V).astype(np.float32)
        uniform_RV *= np.float32(2.0**-53)
        bound_RV = np.divide(weights_RV, uniform_RV, out=uniform_RV)
        best_R = bound_RV.argmax(1)
        own = random_bits(keys_R, self._offsets_V[best_R])
        score_R = weights_RV[np.arange(len(best_R)), best_R] / exponential(own)
        out = np.nonzero(bound_RV >= (score_R * (1 - 1e-5)).astype(np.float32)[:, None])
        return out[0], out[1]


def _argmax(logits_RV: Floats) -> list[Sample | SamplingFailure]:
    """The likeliest token of each row, ties by the smaller id; a failure where it is not finite."""
    best_R = logits_RV.argmax(1)
    peak_R = logits_RV[np.arange(len(best_R)), best_R]
    if np.isfinite(peak_R).all():
        return [Sample(token) for token in best_R.tolist()]
    return [
        Sample(token) if finite else _NOT_FINITE
        for token, finite in zip(best_R.tolist(), np.isfinite(peak_R), strict=True)
    ]


def _add_logprobs(
    samples: list[Sample | SamplingFailure],
    logits_RV: Floats,
    asked: list[int],
    states: list[SamplingState],
) -> None:
    """Complete the samples of the asked rows, in place."""
    x_RV = logits_RV if len(asked) == len(samples) else logits_RV[asked]
    for x_V, norm, index in zip(x_RV, log_norms(x_RV).tolist(), asked, strict=True):
        sample = samples[index]
        assert isinstance(sample, Sample)
        top = top_ids(x_V, states[index].params.logprobs or 0)
        pairs = tuple((int(i), float(x_V[i]) - norm) for i in top)
        samples[index] = Sample(sample.token, float(x_V[sample.token]) - norm, pairs)


def log_norms(logits_RV: Floats) -> NDArray[np.float64]:
    """What to take from each row's logits to get log-probabilities."""
    peak_R = logits_RV.max(1)
    total_R = np.exp(logits_RV - peak_R[:, None]).astype(np.float64).sum(1)
    norms_R: NDArray[np.float64] = peak_R + np.log(total_R)
    return norms_R


def candidates(weights_V: Floats, params: SamplingParams) -> Ids:
    """Ids that top-k, top-p and min-p leave, in no particular order; ties at top-k's edge stay.

    weights_V: unnormalised probabilities, the largest being 1.
    """
    floor = 0.0
    if 0 < params.top_k < len(weights_V):
        floor = float(np.partition(weights_V, -params.top_k)[-params.top_k])
    if params.top_p >= 1.0:
        return np.flatnonzero(weights_V >= max(floor, params.min_p, _LEAST))
    if floor > 0.0:
        weights_V = np.where(weights_V >= floor, weights_V, np.float32(0.0))
    total = float(weights_V.sum(dtype=np.float64))
    # Tokens below this share sum to less than 1 - top_p, so none of them is in the nucleus:
    # what remains to be sorted is short.
    share = (1.0 - params.top_p) * total / len(weights_V) * (1.0 - 1e-6)
    ids: Ids = np.flatnonzero(weights_V >= max(share, _LEAST))
    ids = ids[np.argsort(-weights_V[ids], kind="stable")]
    mass = np.cumsum(weights_V[ids], dtype=np.float64)
    nucleus: Ids = ids[: int(np.searchsorted(mass, params.top_p * total)) + 1]
    return nucleus[weights_V[nucleus] >= params.min_p]


def top_ids(logits_V: Floats, count: int) -> Ids:
    """The `count` largest, likeliest first, ties by the smaller id."""
    if count == 0:
        return np.empty(0, np.int64)
    count = min(count, len(logits_V))
    ids = np.flatnonzero(logits_V >= np.partition(logits_V, -count)[-count])
    return ids[np.argsort(-logits_V[ids], kind="stable")][:count]
