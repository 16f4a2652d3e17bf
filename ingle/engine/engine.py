"""Tokens in, tokens out: many requests at once over one model, one step at a time.

Legend: N rows of a step, D model width, R sampled rows.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from dataclasses import replace
from threading import Lock
from time import perf_counter
from traceback import format_tb
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from ingle.engine.cache import LatentCache
from ingle.engine.config import EngineConfig
from ingle.engine.explain import PrefixReport, RecentPrompts, report
from ingle.engine.output import emit, event
from ingle.engine.plan import Part, Plan, lay_out
from ingle.engine.prefix import PrefixCache
from ingle.engine.request import Request, TokenEvent
from ingle.engine.runner import Runner, StepModel
from ingle.engine.sampler import Sample, Sampler, SamplingFailure, SamplingState
from ingle.engine.scheduler import Scheduler, Work
from ingle.engine.scoring import PromptScores
from ingle.engine.sequence import Sequence
from ingle.engine.speculative import Computed, DraftController, Speculator
from ingle.engine.stats import EngineStats
from ingle.engine.text import TextStream
from ingle.engine.traffic import Traffic
from ingle.errors import ConfigError, ContextLengthError, InvalidRequestError, QueueFullError
from ingle.models.batch import PAGE_TOKENS
from ingle.models.config import WithExperts

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


class Engine:
    """Continuous batching with chunked prefill, a prefix cache, pre-emption and speculation.

    One thread calls `step`; `submit` and `cancel` may be called from any. The same request with
    the same seed gives the same tokens, alone or in a batch, cached or not, drafted or not, as far
    as the model's rows do not depend on each other (bitwise on the fp32 `cpu` kernels).
    """

    def __init__(
        self,
        model: StepModel,
        tokenizer: Tokenizer | None = None,
        config: EngineConfig | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.config = config = config or EngineConfig()
        context = min(config.context or 1 << 62, int(model.config.max_position_embeddings))
        mtp = config.speculative != "off" and model.num_mtp > 0
        dtype = config.cache_dtype or _model_dtype(model)
        layers, _, _, width = model.cache_shape(1)
        page_bytes = (layers + mtp) * PAGE_TOKENS * width * dtype.itemsize
        pages = config.choose_pages(context, page_bytes)
        routes = _routes_shape(model) if config.record_routes else None
        cache = LatentCache(model.cache_shape(pages), dtype, mtp, routes)
        self.context = min(context, pages * PAGE_TOKENS)  # most tokens of prompt plus output
        self.eos_ids = frozenset(_eos_ids(model, tokenizer, config))
        self.vocab = int(model.config.vocab_size)  # rows of its output; the tokenizer may have less
        self._cache = cache
        self._runner = Runner(model, cache, config.max_sequences, self.context)
        self._prefix = PrefixCache(cache, config.fingerprint, config.prefix_cache)
        self._recent = RecentPrompts()
        self._scheduler = Scheduler(
            self._prefix, self._runner.table, config.token_budget, config.share_tails
        )
        self._sampler = Sampler(self.vocab)
        self._speculator = Speculator(self._runner, self._sampler, config.draft_length)
        self._controller = DraftController(config.speculative if mtp else "off")
        self._lock = Lock()
        self._inbox: deque[tuple[Literal["submit", "cancel"], Sequence]] = deque()
        self._live: dict[str, Sequence] = {}
        self._steps = self._generated_tokens = 0
        self._step_seconds = self._step_bytes = 0.0
        self._traffic = Traffic.of(model, cache.bytes_per_token)

    # --- requests ---

    def submit(self, request: Request) -> None:
        """Queue a request; its tokens come out of later steps.

        max_tokens beyond the context is cut to it; `check_length` is there for callers who would
        rather refuse. Raises InvalidRequestError, ContextLengthError or QueueFullError.
        """
        sequence = self._sequence(request)
        with self._lock:
            if request.id in self._live:
                raise InvalidRequestError("A request with this id is already in the engine.", "id")
            if len(self._live) >= self.config.max_sequences + self.config.max_waiting:
                raise QueueFullError(
                    f"{len(self._live)} requests are running or waiting already. Try again later."
                )
            self._live[request.id] = sequence
            self._inbox.append(("submit", sequence))

    def check(self, request: Request) -> None:
        """Raise what `submit` would raise for the request itself, whatever else is running."""
        prompt, params = request.prompt, request.params
        if not prompt:
            raise InvalidRequestError("The prompt is empty; give at least one token.", "prompt")
        if min(prompt) < 0 or max(prompt) >= self.vocab:  # would crash inside a kernel
            raise InvalidRequestError("The prompt has a token id out of the vocabulary.", "prompt")
        if any(not 0 <= token < self.vocab for token in params.logit_bias):
            raise InvalidRequestError("logit_bias names an unknown token id.", "logit_bias")
        if params.stop and self.tokenizer is None:
            raise InvalidRequestError("Stop strings need a tokenizer; use stop_token_ids.", "stop")
        if params.grammar is not None and params.grammar.vocab != self.vocab:
            raise InvalidRequestError("The grammar was compiled for another model.", "grammar")
        self.check_length(len(prompt), None)

    def cancel(self, request_id: str) -> None:
        """End a request at the start of the next step; an unknown or finished id is no error."""
        with self._lock:
            if (sequence := self._live.get(request_id)) is not None:
                self._inbox.append(("cancel", sequence))

    def check_length(self, prompt_tokens: int, max_tokens: int | None) -> None:
        """Raise ContextLengthError unless the prompt and all requested output fit the context."""
        room = self.context - prompt_tokens
        if room < 1:
            raise ContextLengthError(
                f"The prompt has {prompt_tokens} tokens; the context holds {self.context} tokens "
                "of prompt and output. Shorten the prompt.",
                "messages",
            )
        if max_tokens is not None and max_tokens > room:
            raise ContextLengthError(
                f"The prompt has {prompt_tokens} tokens and max_tokens is {max_tokens}; the "
                f"context holds {self.context} together. Ask for at most {room}.",
                "max_tokens",
            )

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._live or self._inbox)

    def reset_prefix(self, fingerprint: bytes) -> None:
        """Forget all cached pages, for when the weights have changed; nothing may be running."""
        if self.has_work:
            raise InvalidRequestError("The prefix cache is in use: finish all requests first.")
        self._prefix.reset(fingerprint)
        self._recent.clear()

    def explain(self, prompt: list[int], salt: bytes = b"") -> PrefixReport:
        """How much of a prompt is cached and why not more; may be called from any thread.

        Compares with the recent requests of the same salt, running ones included.
        """
        with self._lock:
            live = [s for s in self._live.values() if s.request.salt == salt]
        running = [np.array(s.tokens[: s.computed], np.int32) for s in live]
        cached = self._prefix.cached_tokens(prompt, salt)
        return report(prompt, cached, self._recent.of(salt) + running)

    def stats(self) -> EngineStats:
        """A snapshot of counters and occupancy; may be read from any thread."""
        running = len(self._scheduler.running)
        return EngineStats(
            running=running,
            waiting=max(0, len(self._live) - running),
            pages_total=self._cache.pages,
            pages_used=self._cache.referenced,
            pages_cached=self._prefix.idle,
            bytes_per_token=self._cache.bytes_per_token,
            mtp_bytes_per_token=self._cache.mtp_bytes_per_token,
            steps=self._steps,
            prompt_tokens=self._scheduler.prompt_tokens,
            cached_tokens=self._scheduler.cached_tokens,
            generated_tokens=self._generated_tokens,
            preemptions=self._scheduler.preemptions,
            drafted=tuple(self._speculator.drafted),
            accepted=tuple(self._speculator.accepted),
            step_seconds=self._step_seconds,
            step_bytes=self._step_bytes,
        )

    # --- one step ---

    @torch.no_grad()  # not inference_mode: tables a model caches here serve training too
    def step(self) -> list[TokenEvent]:
        """Advance every scheduled request by one step and return what they produced.

        A request that fails ends with finish_reason "error"; the others go on.
        """
        events = self._drain() if self._inbox else []
        work = self._scheduler.schedule()
        if not work:
            return events
        started = perf_counter()
        try:
            events += self._compute(work, started)
        except Exception as error:
            # Whatever broke this batch must not take down the requests that were not in it.
            events += [self._broken(sequence, error) for sequence, _ in work]
            for sequence, _ in work:
                self._remove(sequence)
        self._steps += 1
        weight = 0.05 if self._steps > 1 else 1.0
        self._step_seconds += weight * (perf_counter() - started - self._step_seconds)
        rows = sum(length for _, length in work)
        context = sum(sequence.computed for sequence, _ in work)
        self._step_bytes += weight * (self._traffic.step(rows, context) - self._step_bytes)
        return events

    def _compute(self, work: list[Work], started: float) -> list[TokenEvent]:
        plan = lay_out(work)
        hidden_ND = self._runner.forward(plan.spans)
        samples = self._sample(hidden_ND, plan)
        before = self._generated_tokens
        events: list[TokenEvent] = []
        computed: list[Computed] = []
        ended: list[Sequence] = []
        for part in plan.parts:
            sequence = part.work.sequence
            try:
                made, rows_done = self._accept(part, hidden_ND, samples)
            except Exception as error:  # in one request's text or penalties: the others go on
                made, rows_done = self._broken(sequence, error), None
            if made is not None:
                events.append(made)
            if rows_done is not None:
                computed.append(rows_done)
            else:
                ended.append(sequence)
        drafting = perf_counter()
        phase = self._controller.phase(len(work))
        self._speculator.advance(computed, hidden_ND, phase)
        now = perf_counter()
        for sequence, _ in work:
            self._prefix.publish(sequence)
        for sequence in ended:
            self._remove(sequence)
        if plan.decode_only:
            emitted, seconds = self._generated_tokens - before, now - started
            self._controller.record(len(work), plan.verified, emitted, seconds, now - drafting)
        return events

    def _sample(self, hidden_ND: Tensor, plan: Plan) -> list[Sample | SamplingFailure]:
        if not plan.rows:
            return []
        return self._sampler.sample(self._runner.logits(hidden_ND, plan.logit_rows), plan.rows)

    def _accept(
        self, part: Part, hidden_ND: Tensor, samples: list[Sample | SamplingFailure]
    ) -> tuple[TokenEvent | None, Computed | None]:
        """Take over one sequence's results: confirmed drafts and the token after them.

        Returns the event to report, if any, and the accepted rows unless the request has ended.
        """
        (sequence, length), first, sampled, drafts = part
        start = sequence.computed
        sequence.computed += length
        if sequence.scores is not None:
            sequence.scores.add(self._runner, hidden_ND, first, start, length)
        if sampled < 0:
            if not sequence.pending:  # only the prompt's log-probabilities were asked for
                return event(sequence, [], "length"), None
            return None, Computed(sequence, first, start, length)
        new: list[Sample] = []
        for sample in samples[sampled : sampled + len(drafts) + 1]:
            if isinstance(sample, SamplingFailure):
                sequence.computed = 0  # its latents are not to be trusted: publish none
                return event(sequence, [], "error", error=sample.message), None
            new.append(sample)
            if len(new) <= len(drafts) and sample.token != drafts[len(new) - 1]:
                break
        confirmed = len(new) - 1
        self._speculator.record(len(drafts), confirmed)
        sequence.computed += confirmed
        before = len(sequence.tokens)
        made = emit(sequence, new, self.eos_ids)
        self._generated_tokens += len(sequence.tokens) - before
        if made is not None and made.finish_reason is not None:
            sequence.computed = min(sequence.computed, len(sequence.tokens))
            count = min(sequence.computed, len(sequence.tokens) - 1)
            return replace(made, routes=self._runner.routes(sequence.lane, count)), None
        return made, Computed(sequence, first, start, length + confirmed)

    def _broken(self, sequence: Sequence, error: Exception) -> TokenEvent:
        """The last event of a request that met an unexpected error.

        The log gets the place, not the error's own text, which might quote a prompt.
        """
        place = "".join(format_tb(error.__traceback__))
        logger.error("A request failed: %s\n%s", type(error).__name__, place)
        sequence.computed = 0  # its latents are not to be trusted: publish none
        return event(sequence, [], "error", error="The model failed on this request.")

    def _remove(self, sequence: Sequence) -> None:
        with self._lock:
            if self._live.pop(sequence.request.id, None) is None:
                return
        if self.config.prefix_cache:
            self._recent.add(sequence.request.salt, sequence.tokens[: sequence.computed])
        self._scheduler.remove(sequence)

    # --- what goes in ---

    def _drain(self) -> list[TokenEvent]:
        """Take over what other threads submitted and cancelled since the last step."""
        events = []
        while self._inbox:
            what, sequence = self._inbox.popleft()
            if what == "submit":
                self._scheduler.waiting.enter(sequence)
            elif self._live.get(sequence.request.id) is sequence:  # it may have finished since
                self._remove(sequence)
                events.append(event(sequence, [], "cancelled"))
        return events

    def _sequence(self, request: Request) -> Sequence:
        self.check(request)
        prompt, params = request.prompt, request.params
        limit = self.context
        if params.max_tokens is not None:
            limit = min(limit, len(prompt) + params.max_tokens)
        seed = secrets.randbits(63) if params.seed is None else params.seed
        state = SamplingState(params, prompt, seed)
        text = TextStream(self.tokenizer, params.stop, params.stop_window)
        scores = None
        if params.prompt_logprobs is not None:
            scores = PromptScores(prompt, params.prompt_logprobs, self.tokenizer)
        return Sequence(request, limit, state, text, scores)


def _routes_shape(model: StepModel) -> tuple[int, int]:
    config = model.config
    if not isinstance(config, WithExperts) or config.n_routed_experts > 256:
        raise ConfigError("record_routes needs a mixture of at most 256 experts.")
    return config.routes_shape


def _model_dtype(model: StepModel) -> torch.dtype:
    parameter = next(iter(getattr(model, "parameters", lambda: ())()), None)
    return torch.float32 if parameter is None else parameter.dtype


def _eos_ids(
    model: StepModel, tokenizer: Tokenizer | None, config: EngineConfig
) -> tuple[int, ...]:
    if config.eos_ids is not None:
        return config.eos_ids
    eos: tuple[int, ...] = tuple(model.config.eos_ids)
    return eos if tokenizer is None else (*eos, tokenizer.eos_id)
