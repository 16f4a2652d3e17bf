"""Names and stacking: official checkpoints hold each expert apart, a layer here holds two stacks.

`...mlp.experts.E.{gate,up,down}_proj.weight`  <->  `...mlp.experts.{gate_up,down}_proj`
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from ingle.errors import WeightsError

_EXPERT = re.compile(r"(.*\.mlp\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")


def stack_experts(tensors: dict[str, Tensor], experts: int) -> dict[str, Tensor]:
    """Official names to module names. Raises WeightsError when an expert's weight is missing."""
    out: dict[str, Tensor] = {}
    layers: dict[str, dict[tuple[int, str], Tensor]] = {}
    for name, tensor in tensors.items():
        match = _EXPERT.fullmatch(name)
        if match is None:
            out[name] = tensor
        else:
            layers.setdefault(match[1], {})[int(match[2]), match[3]] = tensor
    for prefix, parts in layers.items():
        try:
            gate_up = [torch.cat([parts[e, "gate"], parts[e, "up"]]) for e in range(experts)]
            out[f"{prefix}.gate_up_proj"] = torch.stack(gate_up)
            out[f"{prefix}.down_proj"] = torch.stack([parts[e, "down"] for e in range(experts)])
        except (KeyError, RuntimeError):
            raise WeightsError(f"{prefix}: experts are missing or differ in shape.") from None
        if len(parts) != 3 * experts:
            raise WeightsError(f"{prefix}: holds more experts than the config's {experts}.")
    return out


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
