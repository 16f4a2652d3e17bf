"""Names and stacking: official checkpoints hold each expert apart, a layer here holds two stacks.

`...mlp.experts.E.{gate,up,down}_proj.weight`  <->  `...mlp.experts.{gate_up,down}_proj`
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FP32 = "e_score_correction_bias"  # routing stays fp32 whatever the weights are
SCALE = "_scale_inv"  # after the name of an fp8 weight: the scales of its squares, to multiply by


@dataclass(frozen=True)
class Source:
    """A tensor of a checkpoint and its place in a tensor of the model: rows from `offset` on, of
    one expert's matrix in a stack."""

    name: str
    shape: torch.Size
    expert: int | None = None
    offset: int = 0


def sources(name: str, shape: torch.Size) -> list[Source]:
    """The checkpoint's tensors that make up a tensor of the model."""
    prefix, _, last = name.rpartition(".")
    if not prefix.endswith("mlp.experts"):
        return [Source(name, shape)]
    experts, rows, inner = shape
    if last == "down_proj":
        return [
            Source(f"{prefix}.{e}.down_proj.weight", torch.Size((rows, inner)), e)
            for e in range(experts)
        ]
    half = torch.Size((rows // 2, inner))
    return [
        Source(f"{prefix}.{e}.{which}_proj.weight", half, e, offset)
        for e in range(experts)
        for which, offset in (("gate", 0), ("up", rows // 2))
    ]


def unstack_experts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Module names to official names."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        prefix, _, last = name.rpartition(".")
        if last == "gate_up_proj" and tensor.dim() == 3:
            for e, weight in enumerate(tensor):
                gate, up = weight.chunk(2)
                out[f"{prefix}.{e}.gate_proj.weight"] = gate
                out[f"{prefix}.{e}.up_proj.weight"] = up
        elif last == "down_proj" and tensor.dim() == 3:
            for e, weight in enumerate(tensor):
                out[f"{prefix}.{e}.down_proj.weight"] = weight
        else:
            out[name] = tensor
    return out
