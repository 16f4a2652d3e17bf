"""What comes out for one request: new tokens up to the end of it, as events."""

from __future__ import annotations

from collections.abc import Container

from ingle.engine.grammar_state import GrammarFailure
from ingle.engine.request import FinishReason, TokenEvent, TokenOut
from ingle.engine.sampler import Sample
from ingle.engine.sequence import Sequence


def emit(sequence: Sequence, samples: list[Sample], eos_ids: Container[int]) -> TokenEvent | None:
    """Append new tokens up to the first that ends the request; the event to report, if any."""
    out: list[TokenOut] = []
    params, state, text = sequence.request.params, sequence.sampling, sequence.text
    for sample in samples:
        token = sample.token
        sequence.tokens.append(token)
        ends = token in params.stop_token_ids or (token in eos_ids and not params.ignore_eos)
        out += text.push(sample, silent=ends)
        try:
            state.observe(token)
        except GrammarFailure as failure:
            return event(sequence, out, "error", error=str(failure))
        if text.matched is not None:
            return event(sequence, out, "stop", stop_reason=text.matched)
        if ends:
            return event(sequence, out, "stop", stop_reason=token)
        if state.grammar is not None and state.grammar.ended:
            return event(sequence, out, "stop")
        if len(sequence.tokens) >= sequence.limit:
            return event(sequence, out, "length")
    return event(sequence, out) if out or sequence.scored else None


def event(
    sequence: Sequence,
    tokens: list[TokenOut],
    reason: FinishReason | None = None,
    stop_reason: str | int | None = None,
    error: str | None = None,
) -> TokenEvent:
    """An event with these tokens; with a reason it is the last one and has all held-back text."""
    if reason is not None:
        tokens = sequence.text.finish(tokens)
    return TokenEvent(
        request_id=sequence.request.id,
        tokens=tuple(tokens),
        finish_reason=reason,
        prompt_tokens=len(sequence.request.prompt),
        cached_tokens=sequence.cached_tokens or 0,
        completion_tokens=sequence.generated,
        stop_reason=stop_reason,
        error=error,
        queue_seconds=sequence.queue_seconds,
        prompt_logprobs=None if sequence.scores is None else sequence.take_scores(),
    )
