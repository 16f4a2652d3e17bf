"""Where sampler and trainer send a token to different experts.

A quantised sampler rounds what its routers read, so that where two experts are nearly as good it
may take the other one, and the trainer differentiates a function that did not write the text. So
the sampler records its choice and the trainer takes it over, with gate weights of its own
(DeepSeek-V3.2, arXiv 2512.02556: "keep routing").

Legend: T tokens of a packed stream, M mixture layers, K experts chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ingle.models.causal_lm import CausalLM
from ingle.models.layers.moe import MoE
from ingle.training.reinforcement.policy import Lesson, Policy, pack_lessons

SOME = 8  # rollouts that disagreement is measured on: 2 % of an update of 128 (docs/log.md)


def routing_disagreement(model: CausalLM, policy: Policy, lessons: Sequence[Lesson]) -> float:
    """Share of choices (of a token in a mixture layer) in which the trainer, left alone, takes
    another set of experts than the sampler recorded; over a few of the lessons, spread evenly."""
    some = lessons[:: -(-len(lessons) // SOME)]
    length = sum(len(lesson.prompt) + len(lesson.tokens) for lesson in some)
    (arrays,) = pack_lessons(some, length, 1, 0)[0]
    batch = policy.batches([arrays])[0]
    assert batch.routes_MTK is not None
    own_MTK = routes_of(model, batch.tokens_T, batch.starts_T)
    differs_MT = (own_MTK.sort(-1).values != batch.routes_MTK.sort(-1).values).any(-1)
    recorded_MT = batch.routes_MTK[..., 0] >= 0
    return float(differs_MT[recorded_MT].float().mean())


@torch.no_grad()
def routes_of(model: CausalLM, tokens_T: Tensor, starts_T: Tensor | None = None) -> Tensor:
    """The experts that the model itself chooses for each token, int32 [M, T, K]."""
    found: list[Tensor] = []
    with _listening(model, found):
        model.hidden(tokens_T[None], starts_T)
    return torch.stack(found)


@contextmanager
def _listening(model: CausalLM, found: list[Tensor]) -> Iterator[None]:
    """Routers report their choices while this lasts, and loads are not counted."""
    training = model.training
    handles = [
        module.gate.register_forward_hook(lambda _module, _inputs, made: found.append(made[0]))
        for module in model.modules()
        if isinstance(module, MoE)
    ]
    model.eval()
    try:
        yield
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
