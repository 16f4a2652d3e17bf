"""Auxiliary-loss-free load balancing (arXiv 2408.15664): nudge each expert's selection bias by the
sign of its load error. No gradient, no extra loss term.

Legend: M mixture layers, E experts.
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
    if not (loads := expert_loads(model)):
        return Balance(0.0, 0)
    loads_ME = torch.stack(loads)  # a model on a GPU is waited for twice, not at every layer
    used_M = loads_ME.any(1)
    violation_M = torch.where(used_M, loads_ME.amax(1) / loads_ME.mean(1) - 1, 0.0)
    found = Balance(float(violation_M.max()), int((loads_ME[used_M] == 0).sum()))
    for bias_E, load_E in zip(router_biases(model), loads, strict=False):  # V2 has no biases
        bias_E += bias_update(load_E, speed)
    for load_E in loads:
        load_E.zero_()
    return found


def expert_loads(model: CausalLM) -> list[Tensor]:
    """The load counters of all expert layers, in order."""
    return [module.load_E for module in model.modules() if isinstance(module, MoE)]


def router_biases(model: CausalLM) -> list[Tensor]:
    """The selection biases of all expert layers, in order."""
    routers = (module.gate for module in model.modules() if isinstance(module, MoE))
    return [r.e_score_correction_bias for r in routers if r.e_score_correction_bias is not None]
