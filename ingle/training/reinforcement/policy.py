"""Learning from rollouts: packed batches of them, and the loss of an `Objective` on such a batch.

Legend: T tokens of a packed stream, V vocabulary, K ids that the sampler's filters kept; of routes:
M mixture layers, K experts chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ingle.models.causal_lm import CausalLM
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.reinforcement.objectives import (
    Objective,
    divergence,
    sequence_means,
    surrogate,
    too_far,
)

PARTS = ("policy", "kl", "entropy", "clipped", "drift")


@dataclass(frozen=True)
class Lesson:
    """One rollout as the trainer sees it.

    logprobs: of its tokens under what they were drawn from. advantage; weight: of each of its
    tokens in the step's loss. reference: log-probabilities under the reference model, if one is
    compared with. kept: for each token the ids that the sampler's filters left, () for all.
    routes: the experts that the sampler's first tokens chose, prompt included (rollout.py).
    """

    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]
    advantage: float
    weight: float
    reference: list[float] | None = None
    kept: list[tuple[int, ...]] | None = None
    routes: NDArray[np.uint8] | None = None  # [tokens, M, K]


@dataclass(frozen=True)
class PolicyBatch:
    """Rollouts laid end to end. What belongs to a token stands where it is predicted, at the
    position before it; sequence_T is the rollout's number there and the last number elsewhere."""

    tokens_T: Tensor
    starts_T: Tensor
    targets_T: Tensor
    sequence_T: Tensor
    old_T: Tensor
    advantage_T: Tensor
    weight_T: Tensor
    reference_T: Tensor
    kept_TV: Tensor | None  # bool
    routes_MTK: Tensor | None  # int32, -1 where the router is left its choice


Arrays = dict[str, NDArray]


@dataclass(frozen=True)
class Policy:
    """`Algorithm` of reinforcement learning. A job is a list of packed arrays (`pack_lessons`).

    temperature: of the sampler; the trainer's probabilities are taken at the same. routes: M and K,
    to send tokens to the experts that the sampler sent them to; None leaves routers their choice.
    """

    objective: Objective
    temperature: float
    vocab: int
    routes: tuple[int, int] | None = None

    def batches(self, job: list[Arrays], tokenizer: Tokenizer | None = None) -> list[PolicyBatch]:
        """The arrays as tensors; the ids kept become a mask over the vocabulary, and routes are
        spread over all tokens."""
        return [self._batch(arrays) for arrays in job]

    def counts(self, batch: PolicyBatch) -> Tensor:
        """Trained tokens, [1]."""
        return (batch.targets_T != -100).sum()[None]

    def loss(self, model: CausalLM, batch: PolicyBatch, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The batch's share of the loss and of PARTS: policy term, KL, entropy and share of clipped
        tokens (means over all tokens of the step), and mean of |logp - old|."""
        o = self.objective
        logits_TV = self.logits(model, batch)
        every_TV = logits_TV.log_softmax(-1)
        trained_T = batch.targets_T != -100
        logp_T = every_TV.gather(-1, batch.targets_T.clamp(min=0)[:, None])[:, 0]
        logp_T = torch.where(trained_T, logp_T, 0.0)
        mean = partial(sequence_means, sequence_T=batch.sequence_T, count=len(batch.tokens_T))
        term_T, clipped_T = surrogate(o, logp_T, batch.old_T, batch.advantage_T, mean)
        if o.off_policy is not None:
            out_T = too_far(logp_T, batch.old_T, batch.advantage_T, o.off_policy, mean)
            term_T = torch.where(out_T, 0.0, term_T)
        policy = (batch.weight_T * term_T).sum()
        loss, kl_T = policy, torch.zeros_like(logp_T)
        if o.kl:
            kl_T = divergence(logp_T, batch.reference_T)
            if o.unbiased_kl:
                kl_T = (logp_T - batch.old_T).exp() * kl_T
            loss = loss + o.kl * (batch.weight_T * kl_T).sum()
        with torch.no_grad():
            finite_TV = torch.where(every_TV > -1e9, every_TV, 0.0)
            entropy_T = -(every_TV.exp() * finite_TV).sum(-1)
            numbers = (kl_T, entropy_T, clipped_T.float(), (logp_T - batch.old_T).abs())
            sums = [torch.where(trained_T, x, 0.0).sum() / counts[0].clamp(min=1) for x in numbers]
            parts = torch.stack([policy, *sums])
        return loss, parts

    def logits(self, model: CausalLM, batch: PolicyBatch) -> Tensor:
        """At the sampler's temperature and over what it kept, fp32 [T, V]."""
        hidden_1TD = model.hidden(batch.tokens_T[None], batch.starts_T, batch.routes_MTK)
        logits_TV = model.logits(hidden_1TD)[0].float() / self.temperature
        if batch.kept_TV is not None:
            logits_TV = logits_TV.masked_fill(~batch.kept_TV, -1e10)
        return logits_TV

    def _batch(self, arrays: Arrays) -> PolicyBatch:
        tensors = {name: any_length(torch.from_numpy(array)) for name, array in arrays.items()}
        kept_TV = None
        if self.objective.keep_sampling and "kept_rows" in tensors:
            rows, ids = tensors.pop("kept_rows"), tensors.pop("kept_ids")
            shape = len(tensors["tokens_T"]), self.vocab
            kept_TV = any_length(torch.ones(shape, dtype=torch.bool))
            kept_TV[rows] = False
            kept_TV[rows, ids] = True
        tensors.pop("kept_rows", None), tensors.pop("kept_ids", None)
        routes_MTK = self._take_routes(tensors)
        return PolicyBatch(**tensors, kept_TV=kept_TV, routes_MTK=routes_MTK)

    def _take_routes(self, tensors: dict[str, Tensor]) -> Tensor | None:
        """What was recorded, spread over all tokens; also for a batch without rollouts, so that
        compiled code meets one shape."""
        recorded = "route_rows" in tensors
        if recorded:
            rows, ids_RMK = tensors.pop("route_rows"), tensors.pop("route_ids")
        if self.routes is None:
            return None
        mixtures, chosen = self.routes
        shape = mixtures, len(tensors["tokens_T"]), chosen
        routes_MTK = any_length(torch.full(shape, -1, dtype=torch.int32), 1)
        if recorded:
            routes_MTK[:, rows] = ids_RMK.transpose(0, 1).int()
        return routes_MTK


def any_length(tensor: Tensor, dim: int = 0) -> Tensor:
    """Have torch.compile make one code for all lengths of this dimension, not one for each."""
    torch._dynamo.maybe_mark_dynamic(tensor, dim)
    return tensor


def pack_lessons(lessons: Sequence[Lesson], length: int, streams: int, pad: int) -> list[
    list[Arrays]
]:  # fmt: skip
    """Lessons in packed batches of at most `length` tokens, equally many for each stream and all of
    nearly one size (longest lesson first, into the emptiest batch): streams run side by side, so
    the largest decides. Nothing is padded. A lesson longer than `length` has a batch of its own; a
    batch without lessons is two tokens of padding.
    """
    ordered = sorted(lessons, key=lambda one: -_size(one))
    most = max(1, -(-len(ordered) // streams))
    each = min(most, max(1, -(-sum(map(_size, ordered)) // (length * streams))))
    while True:
        bins: list[list[Lesson]] = [[] for _ in range(each * streams)]
        sizes = [0] * len(bins)
        for lesson in ordered:
            place = sizes.index(min(sizes))
            bins[place].append(lesson)
            sizes[place] += _size(lesson)
        if all(n <= length or len(some) == 1 for n, some in zip(sizes, bins, strict=True)):
            break
        each += 1
    return [[_arrays(some, pad) for some in bins[i::streams]] for i in range(streams)]


def _size(lesson: Lesson) -> int:
    return len(lesson.prompt) + len(lesson.tokens)


def _arrays(lessons: Sequence[Lesson], pad: int) -> Arrays:
    """One packed batch as arrays; padding is a document per token, as in data.pack."""
    length = max(2, sum(map(_size, lessons)))  # code for any length is not for 0 or 1
    arrays: Arrays = {
        "tokens_T": np.full(length, pad, np.int64),
        "starts_T": np.arange(length, dtype=np.int32),
        "targets_T": np.full(length, -100, np.int64),
        "sequence_T": np.full(length, length, np.int64),
    }
    numbers = ("old_T", "advantage_T", "weight_T", "reference_T")
    arrays |= {name: np.zeros(length, np.float32) for name in numbers}
    rows: list[NDArray] = []
    ids: list[NDArray] = []
    routes: list[NDArray] = []
    routed: list[NDArray] = []
    start = 0
    for number, lesson in enumerate(lessons):
        end = start + _size(lesson)
        arrays["tokens_T"][start:end] = lesson.prompt + lesson.tokens
        arrays["starts_T"][start:end] = start
        predicted = slice(start + len(lesson.prompt) - 1, end - 1)
        arrays["targets_T"][predicted] = lesson.tokens
        arrays["sequence_T"][predicted] = number
        arrays["old_T"][predicted] = lesson.logprobs
        arrays["advantage_T"][predicted] = lesson.advantage
        arrays["weight_T"][predicted] = lesson.weight
        if lesson.reference is not None:
            arrays["reference_T"][predicted] = lesson.reference
        for place, kept in enumerate(lesson.kept or ()):
            rows.append(np.full(len(kept), predicted.start + place))
            ids.append(np.array(kept, np.int64))
        if lesson.routes is not None:
            routed.append(np.arange(start, start + len(lesson.routes)))
            routes.append(lesson.routes)
        start = end
    if rows:
        arrays["kept_rows"], arrays["kept_ids"] = np.concatenate(rows), np.concatenate(ids)
    if routes:
        arrays["route_rows"], arrays["route_ids"] = np.concatenate(routed), np.concatenate(routes)
    return arrays
