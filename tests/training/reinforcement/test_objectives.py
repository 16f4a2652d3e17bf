"""Advantages, surrogates and weights: hand-computed cases and properties."""

from __future__ import annotations

import math
import random
from functools import partial

import pytest
import torch

from ingle.errors import ConfigError
from ingle.training.reinforcement.objectives import (
    Objective,
    advantages,
    divergence,
    informative,
    objective_preset,
    sequence_means,
    surrogate,
    token_weights,
    too_far,
)

NAMES = ("grpo", "dr_grpo", "dapo", "gspo", "cispo", "v32", "small")
TOKEN = Objective(scale=False, average="tokens", clip_low=0.2, clip_high=0.28)


def mean_of(sequence_T: list[int], count: int | None = None):
    ids = torch.tensor(sequence_T)
    return partial(sequence_means, sequence_T=ids, count=count or len(ids))


def test_advantages_by_hand() -> None:
    rewards_PG = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    plain_PG = advantages(rewards_PG, scale=False)
    assert plain_PG.tolist() == [[0.75, -0.25, -0.25, -0.25], [0.5, 0.5, -0.5, -0.5]]
    scaled_PG = advantages(rewards_PG, scale=True)
    # sample deviations: sqrt(0.75 / 3) and sqrt(1 / 3)
    assert scaled_PG[0, 0] == pytest.approx(0.75 / (0.5 + 1e-4), rel=1e-6)
    assert scaled_PG[1, 3] == pytest.approx(-0.5 / (math.sqrt(1 / 3) + 1e-4), rel=1e-6)
    with pytest.raises(ConfigError, match="at least two"):
        advantages(torch.ones(3, 1), scale=False)


def test_a_group_whose_rewards_are_equal_teaches_nothing_and_moves_nothing() -> None:
    rewards_PG = torch.tensor([[0.1, 0.1, 0.1], [0.3 - 0.2, 0.1, 0.1], [0.0, 0.1, 0.0]])
    assert informative(rewards_PG).tolist() == [False, False, True]
    for scale in (False, True):
        assert advantages(rewards_PG, scale)[:2].abs().max() < 1e-3


def test_weights_by_hand() -> None:
    assert token_weights([2, 4], "sequences", 100) == [1 / 4, 1 / 8]
    assert token_weights([2, 4], "tokens", 100) == [1 / 6, 1 / 6]
    assert token_weights([2, 4], "constant", 100) == [1 / 200, 1 / 200]
    for average in ("sequences", "tokens"):
        lengths = [random.Random(i).randint(1, 50) for i in range(20)]
        weights = token_weights(lengths, average, 50)
        assert sum(n * w for n, w in zip(lengths, weights, strict=True)) == pytest.approx(1.0)


def test_the_mean_over_a_rollout_stands_at_each_of_its_tokens() -> None:
    values_T = torch.tensor([1.0, 3.0, 9.0, 5.0, 7.0])
    found = sequence_means(values_T, torch.tensor([0, 0, 5, 1, 1]), 5)
    assert found[[0, 1, 3, 4]].tolist() == [2.0, 2.0, 6.0, 6.0]


def test_the_clipped_surrogate_by_hand() -> None:
    old_T = torch.log(torch.tensor([0.5, 0.5, 0.5, 0.5]))
    logp_T = torch.log(torch.tensor([0.8, 0.8, 0.3, 0.3])).requires_grad_()
    advantage_T = torch.tensor([1.0, -1.0, 1.0, -1.0])
    loss_T, clipped_T = surrogate(TOKEN, logp_T, old_T, advantage_T, mean_of([0, 1, 2, 3]))
    # ratios 1.6, 1.6, 0.6, 0.6; the bound is 0.8 to 1.28 and acts where it makes things no better
    assert loss_T.tolist() == pytest.approx([-1.28, 1.6, -0.6, 0.8])
    assert clipped_T.tolist() == [True, False, False, True]
    loss_T.sum().backward()
    assert logp_T.grad.tolist() == pytest.approx([0.0, 1.6, -0.6, 0.0])


def test_one_ratio_a_rollout_is_the_geometric_mean() -> None:
    objective = Objective(
        scale=True, average="sequences", ratio="sequence", clip_low=9, clip_high=9
    )
    logp_T = torch.log(torch.tensor([0.8, 0.2, 0.5])).requires_grad_()
    old_T = torch.log(torch.tensor([0.4, 0.4, 0.25]))
    advantage_T = torch.tensor([2.0, 2.0, -1.0])
    loss_T, _ = surrogate(objective, logp_T, old_T, advantage_T, mean_of([0, 0, 1]))
    first = math.sqrt(2.0 * 0.5)
    assert loss_T.tolist() == pytest.approx([-2 * first, -2 * first, 2.0])
    weights_T = torch.tensor([0.25, 0.25, 0.5])  # two rollouts, of two tokens and of one
    (weights_T * loss_T).sum().backward()
    # d/dlogp of -s * A / 2 with s = exp(mean(logp - old))
    assert logp_T.grad.tolist() == pytest.approx([-2 * first / 4, -2 * first / 4, 2.0 / 2])


def test_cispo_bounds_the_weight_and_keeps_the_gradient() -> None:
    objective = Objective(scale=True, average="tokens", cap=1.5)
    logp_T = torch.log(torch.tensor([0.8, 0.3])).requires_grad_()
    old_T = torch.log(torch.tensor([0.2, 0.3]))
    loss_T, clipped_T = surrogate(
        objective, logp_T, old_T, torch.tensor([2.0, -1.0]), mean_of([0, 1])
    )
    assert loss_T.tolist() == pytest.approx([-1.5 * 2 * math.log(0.8), math.log(0.3)])
    assert clipped_T.tolist() == [True, False]
    loss_T.sum().backward()
    assert logp_T.grad.tolist() == pytest.approx([-3.0, 1.0])


def test_k3_by_hand_and_never_negative() -> None:
    logp, reference = math.log(0.5), math.log(0.25)
    found = divergence(torch.tensor([logp]), torch.tensor([reference]))
    assert found.item() == pytest.approx(0.5 - math.log(0.5) - 1)
    noise = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    assert (divergence(noise, noise.roll(1)) >= 0).all()
    # in expectation over the policy it is the divergence itself
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.4, 0.4, 0.2])
    expected = float((p * (p / q).log()).sum())
    assert float((p * divergence(p.log(), q.log())).sum()) == pytest.approx(expected, rel=1e-5)


def test_what_the_trainer_would_hardly_write_is_left_out_if_it_was_bad() -> None:
    old_T = torch.tensor([-0.1, -0.1, -0.1, -0.1, -0.1, -0.1])
    logp_T = torch.tensor([-1.1, -0.1, -1.1, -0.1, -0.5, -0.5])  # drifts 0.5, 0.5, 0.4
    advantage_T = torch.tensor([-1.0, -1.0, 1.0, 1.0, -1.0, -1.0])
    bad_T = too_far(logp_T, old_T, advantage_T, 0.45, mean_of([0, 0, 1, 1, 2, 2]))
    assert bad_T.tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("name", NAMES)
def test_on_the_sampling_policy_the_gradient_is_the_plain_policy_gradient(name: str) -> None:
    """Ratio 1: whatever the preset, d/dlogp = -A at each token, as in REINFORCE."""
    objective = objective_preset(name)
    logp_T = -torch.rand(6, generator=torch.Generator().manual_seed(2)).requires_grad_()
    logp_T.retain_grad()
    advantage_T = torch.tensor([0.5, 0.5, 0.5, -0.2, -0.2, 1.0])
    old_T = logp_T.detach().clone()
    ids = [0, 0, 0, 1, 1, 2]
    loss_T, clipped_T = surrogate(objective, logp_T, old_T, advantage_T, mean_of(ids))
    assert not clipped_T.any()
    loss_T.sum().backward()
    assert logp_T.grad.tolist() == pytest.approx((-advantage_T).tolist(), rel=1e-5)


def test_a_preset_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match=r"ppo.*gspo"):
        objective_preset("ppo")
