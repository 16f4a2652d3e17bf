"""POST /v1/completions and /beta/completions: text in, text out, or the middle between two texts.

`echo` puts the prompt before the output and scores it if logprobs are wanted; `best_of` writes
several and keeps the likeliest; `suffix` fills in the middle, for vocabularies that can.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from msgspec import UNSET, UnsetType
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ingle.errors import InvalidRequestError
from ingle.prompt.fim import fim_prompt
from ingle.server.body import read_json_body, run_beside
from ingle.server.completions_render import CompletionRenderer
from ingle.server.errors import json_response
from ingle.server.generation import Generation, generate
from ingle.server.reply import Reply
from ingle.server.service import EngineService
from ingle.server.sse import EventStream
from ingle.server.turn import Prepared
from ingle.server.types import (
    MAX_CHOICES,
    Sampling,
    check_sampling,
    decode,
    refuse_values,
    sampling_params,
)

MAX_PROMPTS = 64
DEFAULT_MAX_TOKENS = 16  # OpenAI's; a base model would write to the end of the context

NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {"service_tier": ("auto", "default")}


class CompletionRequest(Sampling, forbid_unknown_fields=True, kw_only=True):
    """Body of POST /v1/completions. prompt: one or several texts or lists of token ids."""

    prompt: str | list[str | int | list[int]]  # one kind, see _check: unions of lists do not decode
    suffix: str | None = None
    max_tokens: int | None = None
    logprobs: int | None = None
    echo: bool | None = None
    best_of: int | None = None
    service_tier: Any | UnsetType = UNSET

    @property
    def candidates(self) -> int:
        """How many outputs are generated for each prompt."""
        return self.choices if self.best_of is None else self.best_of

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """One entry for each prompt of the request."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]  # type: ignore[return-value]
        return self.prompt  # type: ignore[return-value]


class Completions:
    """The endpoint; one instance serves all requests of one service."""

    def __init__(self, service: EngineService) -> None:
        self._service = service

    async def __call__(self, http: HTTPRequest) -> Response:
        """Answer one request; every refusal is raised and written by the app's error handler."""
        body = await read_json_body(http)
        asked, prepared = await run_beside(self.prepare, body)
        name = f"cmpl-{secrets.token_hex(12)}"
        generation = self._generate(http, name, asked, prepared)
        renderer = CompletionRenderer(
            id=name,
            created=int(time.time()),
            model=self._service.model.name,
            fingerprint=self._service.model.fingerprint,
            tokenizer=self._service.tokenizer,
            replies=generation.replies,
            candidates=asked.candidates,
            logprobs=asked.logprobs is not None,
            echoes=self._echoes(asked, prepared),
            include_usage=asked.include_usage,
        )
        if asked.stream:
            return EventStream(generation, renderer)
        replies = await generation.collect(http.receive)
        kept = [
            index
            for first in range(0, len(replies), asked.candidates)
            for index in best(replies[first : first + asked.candidates], asked.choices, first)
        ]
        return json_response(renderer.completion(kept), headers=generation.headers)

    def prepare(self, body: bytes) -> tuple[CompletionRequest, list[Prepared]]:
        """Everything that can be refused about a body, one Prepared for each prompt."""
        asked = decode(body, CompletionRequest)
        refuse_values(asked, NEUTRAL_VALUES)
        check_sampling(asked)
        _check(asked)
        service = self._service
        service.model.check_name(asked.model)
        limit = DEFAULT_MAX_TOKENS if asked.max_tokens is None else asked.max_tokens
        scored = asked.logprobs if asked.echo else None
        if limit == 0 and scored is None:
            scored = 0  # the engine's only way to generate nothing
        # best_of ranks by log-probability, which costs next to nothing to have
        ranked = asked.candidates > asked.choices
        params = sampling_params(
            asked,
            service.model.defaults,
            service.tokenizer.vocab_size,
            max_tokens=limit,
            logprobs=0 if asked.logprobs is None and ranked else asked.logprobs,
            prompt_logprobs=scored,
        )
        prepared = []
        for prompt in asked.prompts:
            service.check_text(len(prompt), "prompt")
            ids = self._encode(prompt, asked.suffix)
            service.check_length(len(ids), params.max_tokens)
            prepared.append(Prepared(ids, params, plain=True))
        return asked, prepared

    def _encode(self, prompt: str | list[int], suffix: str | None) -> list[int]:
        tokenizer = self._service.tokenizer
        if isinstance(prompt, str):
            if suffix is not None:
                return fim_prompt(tokenizer, prompt, suffix)
            return [tokenizer.bos_id, *tokenizer.encode(prompt)]
        if suffix is not None:
            raise InvalidRequestError("suffix needs a prompt of text.", "suffix")
        if not prompt:
            raise InvalidRequestError("prompt must hold at least one token.", "prompt")
        if any(not 0 <= token < tokenizer.vocab_size for token in prompt):
            raise InvalidRequestError("prompt holds an id outside the vocabulary.", "prompt")
        return prompt

    def _generate(
        self, http: HTTPRequest, name: str, asked: CompletionRequest, prepared: list[Prepared]
    ) -> Generation:
        merged = Generation(name, [], [])
        try:
            for index, one in enumerate(prepared):
                part = generate(
                    self._service, http, f"{name}-{index}", one, asked, asked.candidates
                )
                merged.replies += part.replies
                merged.streams += part.streams
                merged.headers |= part.headers
        except BaseException:
            merged.cancel()
            raise
        return merged

    def _echoes(self, asked: CompletionRequest, prepared: list[Prepared]) -> list[list[int] | None]:
        """The prompt each reply repeats, BOS left out where this server put it there."""
        echoes: list[list[int] | None] = []
        for prompt, one in zip(asked.prompts, prepared, strict=True):
            added = isinstance(prompt, str)
            echo = one.prompt[1:] if added else one.prompt
            echoes += [echo if asked.echo else None] * asked.candidates
        return echoes


def best(replies: list[Reply], count: int, first: int = 0) -> list[int]:
    """Places of the `count` replies with the highest mean log-probability, the highest first."""
    if len(replies) == count:
        return list(range(first, first + count))

    def score(index: int) -> float:
        logprobs = [token.logprob or 0.0 for token in replies[index].tokens("content")]
        return sum(logprobs) / max(1, len(logprobs))

    ranked = sorted(range(len(replies)), key=score, reverse=True)[:count]
    return [first + index for index in ranked]


def _check(asked: CompletionRequest) -> None:
    """What the types and the shared checks leave open."""
    if not isinstance(asked.prompt, str) and len(set(map(type, asked.prompt))) > 1:
        raise InvalidRequestError("prompt mixes texts, ids and lists of ids.", "prompt")
    if not 1 <= len(asked.prompts) <= MAX_PROMPTS:
        raise InvalidRequestError(f"prompt takes 1 to {MAX_PROMPTS} prompts.", "prompt")
    if asked.logprobs is not None and not 0 <= asked.logprobs <= 20:
        raise InvalidRequestError("logprobs must lie in [0, 20].", "logprobs")
    if not asked.choices <= asked.candidates <= MAX_CHOICES:
        raise InvalidRequestError(f"best_of must lie in [n, {MAX_CHOICES}].", "best_of")
    if asked.candidates > asked.choices and asked.stream:
        raise InvalidRequestError("best_of above n cannot be streamed.", "best_of")
    if asked.max_tokens == 0 and not asked.echo:
        raise InvalidRequestError("max_tokens may be 0 only with echo.", "max_tokens")
    if asked.suffix is not None and asked.echo:
        raise InvalidRequestError("suffix and echo exclude each other.", "echo")
