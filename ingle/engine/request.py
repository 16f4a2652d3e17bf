"""What goes into the engine and what comes out: sampling parameters, requests, token events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ingle.errors import InvalidRequestError

if TYPE_CHECKING:
    from ingle.engine.grammar import Grammar

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class StopWindow:
    """Where in an output stop strings count: between these tokens, and at its start if `open`."""

    open: bool = True
    opened_by: frozenset[int] = frozenset()
    closed_by: frozenset[int] = frozenset()


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen and when to stop. Ranges are checked on construction.

    temperature: 0 is greedy. top_p, min_p: probabilities. top_k: 0 is off.
    max_tokens: None means "to the end of the context"; 0 is for prompt_logprobs alone.
    seed: None draws one; the same seed gives the same tokens, alone or in a full batch.
    stop: the output ends before the first occurrence of any of these strings in the stop_window.
    stop_token_ids: beside the model's end-of-sequence tokens, which ignore_eos switches off.
    logprobs: None for none, n for the chosen token plus the n likeliest.
    policy: report each token's log-probability under what it was drawn from, after bias, heat
    and filters, and the ids that top_p, top_k and min_p left, where they are on. For training.
    prompt_logprobs: as logprobs, for the prompt's own tokens, which then uses no cached pages.
    grammar: what the output must match.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    stop_window: StopWindow = field(default_factory=StopWindow)
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    seed: int | None = None
    logprobs: int | None = None
    policy: bool = False
    prompt_logprobs: int | None = None
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        _range("temperature", self.temperature, 0.0, 2.0)
        _range("top_p", self.top_p, 0.0, 1.0, low_open=True)
        _range("min_p", self.min_p, 0.0, 1.0)
        _range("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _range("repetition_penalty", self.repetition_penalty, 0.01, 10.0)
        if self.top_k < 0:
            raise InvalidRequestError("top_k must be 0 (off) or a positive integer.", "top_k")
        least = 1 if self.prompt_logprobs is None else 0
        if self.max_tokens is not None and self.max_tokens < least:
            raise InvalidRequestError(f"max_tokens must be at least {least}.", "max_tokens")
        for name in ("logprobs", "prompt_logprobs"):
            count = getattr(self, name)
            if count is not None and not 0 <= count <= 20:
                raise InvalidRequestError(f"{name} must lie in [0, 20].", name)
        if self.policy and (self.temperature == 0.0 or self.logprobs is not None):
            raise InvalidRequestError("policy needs a temperature, and no logprobs.", "policy")
        if len(self.stop) > 16 or any(not s for s in self.stop):
            raise InvalidRequestError("stop takes at most 16 non-empty strings.", "stop")
        if self.grammar is not None and self.ignore_eos:
            raise InvalidRequestError(
                "A grammar decides where to end: drop ignore_eos.", "ignore_eos"
            )
        for bias in self.logit_bias.values():
            _range("logit_bias", bias, -100.0, 100.0)


@dataclass
class Request:
    """One prompt to be continued once.

    salt: separates prefix caches (per API key and end user). client: whose turn it takes in the
    queue (the API key). priority: lower goes first.
    """

    id: str
    prompt: list[int]
    params: SamplingParams
    salt: bytes = b""
    client: bytes = b""
    priority: int = 0


@dataclass(frozen=True)
class TokenOut:
    """One generated token. `text` is what it completed: empty for special tokens and for the
    first bytes of a character that needs more. Joined texts are the output text. kept: see
    SamplingParams.policy."""

    id: int
    text: str
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    kept: tuple[int, ...] = ()


@dataclass(frozen=True)
class TokenEvent:
    """What one step produced for one request; `finish_reason` is set on its last event."""

    request_id: str
    tokens: tuple[TokenOut, ...]
    finish_reason: FinishReason | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    stop_reason: str | int | None = None  # which stop string or token id ended it
    error: str | None = None  # one sentence for people when finish_reason is "error"
    queue_seconds: float = 0.0  # from submission to the first step it had a part in
    prompt_logprobs: tuple[TokenOut, ...] | None = None  # once, at the end of the prefill
    # with the last event, where EngineConfig.record_routes asks: uint8 [tokens, mixture layers,
    # experts chosen] of the prompt and all output but its last token, which nothing was asked of
    routes: NDArray[np.uint8] | None = None


def _range(name: str, value: float, low: float, high: float, low_open: bool = False) -> None:
    inside = (low < value if low_open else low <= value) and value <= high  # False for NaN
    if not inside:
        bracket = "(" if low_open else "["
        raise InvalidRequestError(f"{name} must lie in {bracket}{low:g}, {high:g}].", name)
