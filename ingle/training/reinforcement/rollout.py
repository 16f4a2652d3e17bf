"""Rollouts: the engine continues prompts with the very tensors that are being trained.

There is no second copy of the weights and no second implementation, so what the sampler thought of
a token is what the trainer thinks of it (tests/training/reinforcement/test_rollout.py). Only a run
that asks for it samples from a quantised copy; what the two then disagree on is in routing.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ingle.engine.config import EngineConfig
from ingle.engine.engine import Engine
from ingle.engine.request import Request, SamplingParams, TokenEvent
from ingle.errors import IngleError
from ingle.kernels.quantized import Kind
from ingle.models.causal_lm import CausalLM
from ingle.models.quantised import QuantisedCopy
from ingle.prompt.tokenizer import Tokenizer

BUDGET = 4096  # tokens of a step: prompts are prefilled in few steps


@dataclass
class Completion:
    """What was sampled for one prompt. logprobs: of each token under what it was drawn from. kept:
    the ids that filters left at each, () for all. whole: it ended by itself. routes: the experts
    that each token of prompt and completion but the last chose, uint8 [tokens, mixture layers,
    experts chosen], where the sampler records them."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    kept: list[tuple[int, ...]] = field(default_factory=list)
    whole: bool = False
    routes: NDArray[np.uint8] | None = field(default=None, compare=False)

    def add(self, event: TokenEvent) -> None:
        if event.finish_reason == "error":
            raise IngleError(event.error or "The model failed on a rollout.")
        for token in event.tokens:
            assert token.logprob is not None
            self.tokens.append(token.id)
            self.logprobs.append(token.logprob)
            self.kept.append(token.kept)
        self.whole = event.finish_reason == "stop"
        self.routes = event.routes


@dataclass(frozen=True)
class Reply:
    """A completion as a reader sees it. answer: what follows the thought, None if nothing does."""

    reasoning: str
    answer: str | None


class Sampler:
    """Continues prompts, several times each.

    width: sequences computed at the same time. limit: most tokens of one completion. longest: of a
    prompt. quant: sample from a copy of the model with matrices of this kind instead, rounded anew
    for every call of `sample`. record_routes: see `Completion.routes`.
    """

    def __init__(
        self, model: CausalLM, width: int, limit: int, longest: int, eos_ids: tuple[int, ...],
        quant: Kind | None = None, record_routes: bool = False,
    ) -> None:  # fmt: skip
        self.limit = limit
        self.copy = QuantisedCopy(model, quant) if quant else None
        config = EngineConfig(
            max_sequences=width, max_waiting=1 << 20, token_budget=max(BUDGET, width),
            context=limit + longest, speculative="off", share_tails=True, eos_ids=eos_ids,
            record_routes=record_routes,
        )  # fmt: skip
        self.engine = Engine(self.copy.model if self.copy else model, None, config)

    def sample(
        self, prompts_P: Sequence[list[int]], seeds_P_G: Sequence[Sequence[int]],
        params: SamplingParams,
    ) -> list[list[Completion]]:  # fmt: skip
        """For each prompt one completion per seed, in their order.

        The first of a group goes ahead; the others start once it has computed the prompt, which
        they take over from it.
        """
        if self.copy:
            self.copy.refresh()
        self.engine.reset_prefix(b"")  # the weights have changed
        params = replace(params, max_tokens=self.limit, policy=True)
        found_P_G = [[Completion() for _ in seeds] for seeds in seeds_P_G]
        held: dict[str, list[Request]] = {}
        for place, (prompt, seeds) in enumerate(zip(prompts_P, seeds_P_G, strict=True)):
            requests = [
                Request(f"{place}:{i}", prompt, replace(params, seed=seed))
                for i, seed in enumerate(seeds)
            ]
            self.engine.submit(requests[0])
            held[requests[0].id] = requests[1:]
        while self.engine.has_work:
            for event in self.engine.step():
                place, index = map(int, event.request_id.split(":"))
                found_P_G[place][index].add(event)
                for request in held.pop(event.request_id, ()):
                    self.engine.submit(request)
        return found_P_G


def read_reply(tokens: Sequence[int], tokenizer: Tokenizer) -> Reply:
    """Split a completion at the end of its thought, which is a special token."""
    tokens = [token for token in tokens if token != tokenizer.eos_id]
    close = tokenizer.special("</think>")
    if close not in tokens:
        return Reply(tokenizer.decode(tokens), None)
    place = tokens.index(close)
    return Reply(tokenizer.decode(tokens[:place]), tokenizer.decode(tokens[place + 1 :]))
