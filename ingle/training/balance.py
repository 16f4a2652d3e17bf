"""Auxiliary-loss-free load balancing (arXiv 2408.15664): nudge each expert's selection bias by the
sign of its load error. No gradient, no extra loss term.

Legend: E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ingle.models.causal_lm import CausalLM
from ingle.models.layers.moe import MoE


def bias_update(load_E: Tensor, speed: float) -> Tensor:
    """`speed * sign(mean load - load)` for every expert."""
    return speed * torch.sign(load_E.mean() - load_E)


@dataclass(frozen=True)
class Balance:
    """Worst layer of a step. max_violation: `max load / mean load - 1`, 0 is perfect balance."""

    max_violation: float
    dead_experts: int


@torch.no_grad()
def update_router_biases(model: CausalLM, speed: float) -> Balance:
    """Move every layer's bias by its load since the last call, and start counting anew."""
    worst, dead = 0.0, 0
    for module in model.modules():
        if not isinstance(module, MoE) or not module.load_E.any():
            continue
        worst = max(worst, float(module.load_E.max() / module.load_E.mean() - 1))
        dead += int((module.load_E == 0).sum())
        if (bias_E := module.gate.e_score_correction_bias) is not None:
            bias_E += bias_update(module.load_E, speed)
        module.load_E.zero_()
    return Balance(worst, dead)


def expert_loads(model: CausalLM) -> list[Tensor]:
    """The load counters of all expert layers, in order."""
    return [module.load_E for module in model.modules() if isinstance(module, MoE)]


def router_biases(model: CausalLM) -> list[Tensor]:
    """The selection biases of all expert layers, in order."""
    routers = (module.gate for module in model.modules() if isinstance(module, MoE))
    return [r.e_score_correction_bias for r in routers if r.e_score_correction_bias is not None]
