"""Losses, gradients and advantages equal TRL's, for the variants it has (extra `peers`)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ingle.training.reinforcement.objectives import (
    Objective,
    advantages,
    divergence,
    objective_preset,
    sequence_means,
    surrogate,
    token_weights,
    too_far,
)

trl = pytest.importorskip("trl", reason="TRL is what the losses are compared with; extra 'peers'")

LENGTHS, LIMIT = [3, 7, 1, 5, 7, 2], 9
VARIANTS: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo", "beta": 1e-3},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
    "gspo": {
        "loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 3e-4,
        "epsilon_high": 4e-4,
    },
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0},
    "v32": {"loss_type": "grpo", "beta": 1e-3, "bias": True, "off_policy_mask_threshold": 0.5},
    "small": {"loss_type": "dapo", "epsilon_high": 0.28},
}  # fmt: skip


def drawn(seed: int) -> dict[str, torch.Tensor]:
    """Padded [B, T] log-probabilities of the policy, the sampler and the reference; advantages."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(LENGTHS), max(LENGTHS))
    logp = -2 * torch.rand(shape, generator=generator)
    near = [logp + 0.5 * torch.randn(shape, generator=generator) for _ in range(2)]
    values = torch.randn(shape[0], generator=generator)
    return {"logp": logp, "old": near[0], "reference": near[1], "advantage": values}


def by_trl(given: dict[str, torch.Tensor], variant: dict[str, Any]) -> tuple[float, torch.Tensor]:
    logp = given["logp"].clone().requires_grad_()
    options = {"epsilon_low": 0.2, "epsilon_high": 0.2, "importance_sampling_level": "token",
               "beta": 0.0, "off_policy_mask_threshold": None} | variant  # fmt: skip
    same = SimpleNamespace(
        gather=lambda x: x, reduce=lambda x, reduction: x, num_processes=1, sync_gradients=True
    )
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp, torch.zeros_like(logp), None),
        aux_loss_enabled=False, top_entropy_quantile=1.0, use_vllm=False, accelerator=same,
        get_off_policy_mask=trl.GRPOTrainer.get_off_policy_mask, _entropy_bonus_enabled=False,
        args=SimpleNamespace(
            use_bias_correction_kl=options.pop("bias", False), delta=None, steps_per_generation=1
        ),
        model=SimpleNamespace(training=True), current_gradient_accumulation_steps=1,
        max_completion_length=LIMIT, _metrics={"train": defaultdict(list)}, **options,
    )  # fmt: skip
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    inputs = {
        "prompt_ids": torch.zeros(len(LENGTHS), 2), "prompt_mask": torch.ones(len(LENGTHS), 2),
        "completion_ids": torch.zeros_like(logp), "completion_mask": mask,
        "advantages": given["advantage"], "old_per_token_logps": given["old"],
        "ref_per_token_logps": given["reference"], "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    loss = trl.GRPOTrainer._compute_loss(trainer, trainer.model, inputs)
    loss.backward()
    return float(loss), logp.grad


def by_ingle(given: dict[str, torch.Tensor], o: Objective) -> tuple[float, torch.Tensor]:
    padded = given["logp"].clone().requires_grad_()

    def flat(padded_BT: torch.Tensor) -> torch.Tensor:
        return torch.cat([row[:n] for row, n in zip(padded_BT, LENGTHS, strict=True)])

    times = torch.tensor(LENGTHS)
    logp_T, old_T, reference_T = flat(padded), flat(given["old"]), flat(given["reference"])
    advantage_T = given["advantage"].repeat_interleave(times)
    sequence_T = torch.arange(len(LENGTHS)).repeat_interleave(times)
    weight_T = torch.tensor(token_weights(LENGTHS, o.average, LIMIT)).repeat_interleave(times)
    mean = partial(sequence_means, sequence_T=sequence_T, count=len(LENGTHS))
    term_T, _ = surrogate(o, logp_T, old_T, advantage_T, mean)
    if o.off_policy is not None:
        term_T = torch.where(too_far(logp_T, old_T, advantage_T, o.off_policy, mean), 0.0, term_T)
    if o.kl:
        kl_T = divergence(logp_T, reference_T)
        term_T = term_T + o.kl * (kl_T * (logp_T - old_T).exp() if o.unbiased_kl else kl_T)
    loss = (weight_T * term_T).sum()
    loss.backward()
    return float(loss), padded.grad


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_gradient_equal_trl(name: str, seed: int) -> None:
    given = drawn(seed)
    ours, our_gradient = by_ingle(given, objective_preset(name))
    theirs, their_gradient = by_trl(given, VARIANTS[name])
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-7)
    assert torch.allclose(our_gradient, their_gradient, atol=1e-7)
    assert our_gradient.abs().max() > 1e-3


def test_the_off_policy_mask_acts_in_what_is_compared() -> None:
    v32 = objective_preset("v32")
    others = [by_ingle(drawn(s), replace(v32, off_policy=0.05))[0] for s in range(5)]
    theirs = [
        by_trl(drawn(s), VARIANTS["v32"] | {"off_policy_mask_threshold": 0.05})[0] for s in range(5)
    ]
    assert others == pytest.approx(theirs, rel=1e-5)
    assert others != [by_ingle(drawn(s), v32)[0] for s in range(5)]


def test_advantages_equal_trl() -> None:
    """Its formula stands inside a method that also generates; the deviation is its own function."""
    from trl.trainer.utils import nanstd

    rewards_PG = torch.rand(6, 8, generator=torch.Generator().manual_seed(1))
    centred_PG = rewards_PG - rewards_PG.mean(1, keepdim=True)
    theirs_PG = centred_PG / (nanstd(rewards_PG, dim=1)[:, None] + 1e-4)
    assert torch.allclose(advantages(rewards_PG, True), theirs_PG)
