"""The family of GRPO as small pure functions and named presets.

An objective is three choices: what a reward is worth against its group (`advantages`), how far a
token's probability may be moved for it (`surrogate`) and how tokens are averaged
(`token_weights`). Weights are worked out once over all rollouts of a step, whoever computes which
of them, so no result depends on micro-batches or the number of processes.

Legend: P prompts, G rollouts of a prompt, T tokens of a packed stream, S rollouts in a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ingle.errors import ConfigError

# A group's rewards are floats: equal ones may differ in their last digit, and 1e-4 in the divisor
# is what TRL adds.
ALMOST_EQUAL, SMALL = 1e-6, 1e-4

Mean = Callable[[Tensor], Tensor]  # values_T to their mean over each rollout, at each token


@dataclass(frozen=True)
class Objective:
    """One recipe.

    scale: divide advantages by the group's standard deviation. ratio: of a token's probabilities
    or, "sequence", their geometric mean. clip_low, clip_high: how far the ratio may leave 1;
    cap: instead, the largest weight of a token's plain policy gradient (CISPO). average: over the
    tokens of each rollout, then over rollouts ("sequences"); over all tokens ("tokens"); or over
    rollouts times the length limit ("constant"). kl: weight of the KL divergence from a reference,
    unbiased_kl: weighted by the ratio. off_policy: leave out rollouts of negative advantage that
    the sampler thought likelier than the trainer by more than this, on average over tokens, in
    nats. keep_sampling: take probabilities over what the sampler's filters kept. keep_routing: send
    each token to the experts that the sampler sent it to. refill: draw more prompts for those whose
    rollouts are all equally good. overlong: share of the length limit over whose end a linear
    penalty grows to 1.
    """

    scale: bool
    average: Literal["sequences", "tokens", "constant"]
    ratio: Literal["token", "sequence"] = "token"
    clip_low: float = 0.2
    clip_high: float = 0.2
    cap: float | None = None
    kl: float = 0.0
    unbiased_kl: bool = False
    off_policy: float | None = None
    keep_sampling: bool = False
    keep_routing: bool = False
    refill: bool = False
    overlong: float = 0.0


def objective_preset(name: str) -> Objective:
    """The vetted recipes; ConfigError for a name that is none."""
    presets = {
        # DeepSeek-R1 (arXiv 2501.12948): KL 0.001
        "grpo": Objective(scale=True, average="sequences", kl=1e-3),
        # arXiv 2503.20783
        "dr_grpo": Objective(scale=False, average="constant"),
        # arXiv 2503.14476
        "dapo": Objective(
            scale=True, average="tokens", clip_high=0.28, refill=True, overlong=0.2
        ),
        # arXiv 2507.18071
        "gspo": Objective(
            scale=True, average="sequences", ratio="sequence", clip_low=3e-4, clip_high=4e-4
        ),
        # arXiv 2506.13585
        "cispo": Objective(scale=True, average="tokens", cap=5.0),
        # DeepSeek-V3.2: no division by the deviation, unbiased KL, masks (0.5 is TRL's delta: the
        # paper gives none), the sampler's routing
        "v32": Objective(
            scale=False, average="sequences", kl=1e-3, unbiased_kl=True, off_policy=0.5,
            keep_sampling=True, keep_routing=True,
        ),
        # ours, for small models: Dr. GRPO's advantage, DAPO's average and clip
        "small": Objective(scale=False, average="tokens", clip_high=0.28, overlong=0.2),
    }  # fmt: skip
    if name not in presets:
        raise ConfigError(f"No objective {name!r}; choose one of {', '.join(presets)}.")
    return presets[name]


def advantages(rewards_PG: Tensor, scale: bool) -> Tensor:
    """`r - mean(group)`, divided by its standard deviation + 1e-4 where `scale` is; [P, G].

    The deviation is the sample's (n - 1), as in TRL. Raises ConfigError for groups of one, whose
    rewards can be compared with none.
    """
    if rewards_PG.shape[1] < 2:
        raise ConfigError("A group needs at least two rollouts: its advantages compare them.")
    centred_PG = rewards_PG - rewards_PG.mean(1, keepdim=True)
    if not scale:
        return centred_PG
    return centred_PG / (rewards_PG.std(1, keepdim=True) + SMALL)


def informative(rewards_PG: Tensor) -> Tensor:
    """Which groups teach anything: those whose rewards are not all equal; bool [P]."""
    return rewards_PG.amax(1) - rewards_PG.amin(1) > ALMOST_EQUAL


def token_weights(lengths: Sequence[int], average: str, limit: int) -> list[float]:
    """The weight of each token of each rollout in the step's loss. They sum to 1 ("constant": to
    the mean length over `limit`)."""
    count, tokens = len(lengths), sum(lengths)
    if average == "sequences":
        return [1.0 / (count * length) for length in lengths]
    if average == "tokens":
        return [1.0 / tokens] * count
    return [1.0 / (count * limit)] * count


def sequence_means(values_T: Tensor, sequence_T: Tensor, count: int) -> Tensor:
    """The mean over each rollout's tokens, at each of them; sequence_T says whose token each is,
    and values from `count` on are nobody's (they come back as any number)."""
    sums_S = values_T.new_zeros(count + 1).index_add(0, sequence_T, values_T)
    lengths_S = values_T.new_zeros(count + 1).index_add(0, sequence_T, torch.ones_like(values_T))
    return (sums_S / lengths_S.clamp(min=1))[sequence_T]


def surrogate(
    objective: Objective, logp_T: Tensor, old_T: Tensor, advantage_T: Tensor, mean: Mean
) -> tuple[Tensor, Tensor]:
    """What to minimise at each token, and whether its ratio was clipped (no gradient), both [T].

    `-min(rho A, clip(rho, 1 - low, 1 + high) A)` with `rho = exp(logp - old)` (arXiv 2402.03300),
    or with a cap `-sg(min(rho, cap)) A logp` (arXiv 2506.13585). old_T: log-probabilities of the
    policy that sampled. mean: see `Mean`.
    """
    log_ratio_T = logp_T - old_T
    if objective.ratio == "sequence":
        log_ratio_T = mean(log_ratio_T)
    ratio_T = log_ratio_T.exp()
    if objective.cap is not None:
        clipped_T = ratio_T > objective.cap
        return -ratio_T.clamp(max=objective.cap).detach() * advantage_T * logp_T, clipped_T
    bounded_T = ratio_T.clamp(1 - objective.clip_low, 1 + objective.clip_high)
    plain_T, other_T = ratio_T * advantage_T, bounded_T * advantage_T
    return -torch.minimum(plain_T, other_T), other_T < plain_T


def divergence(logp_T: Tensor, reference_T: Tensor) -> Tensor:
    """K3, the estimate of KL(policy, reference) at each token that is never negative:
    `exp(ref - logp) - (ref - logp) - 1` (Schulman 2020; arXiv 2402.03300)."""
    difference_T = reference_T - logp_T
    return difference_T.exp() - difference_T - 1


def too_far(logp_T: Tensor, old_T: Tensor, advantage_T: Tensor, delta: float, mean: Mean) -> Tensor:
    """Which tokens belong to a rollout whose policy term V3.2 leaves out: a bad one (A < 0) that
    the trainer's policy would hardly write, `mean(old - logp) > delta`. Bool [T]."""
    drift_T = mean((old_T - logp_T).detach())
    return (advantage_T < 0) & (drift_T > delta)
