"""How strongly each input of each matrix is used on a text: what int4 rounding should respect.

An input that is large on real text costs more when its weights are off. Rounding then weighs each
input's error by its mean square (the diagonal of AWQ's and GPTQ's objective, arXiv 2306.00978 and
2210.17323).

Legend: I inputs of a matrix, M rows sorted by expert, N rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ingle.kernels.quantized import Quantized
from ingle.models.causal_lm import CausalLM
from ingle.models.layers.linear import Linear
from ingle.models.layers.moe import Experts


@torch.no_grad()
def input_importance(model: CausalLM, tokens_BT: Tensor) -> dict[str, Tensor]:
    """Mean square [I] of every matrix's inputs over some text, under the matrix's name.

    The model may itself be quantised (int8 is close enough to its inputs). Experts of a layer share
    one measure each for their two stacks, over all rows that any of them received.
    """
    sums: dict[str, _MeanSquare] = {}
    with _watched(model, sums):
        hidden = model.hidden(tokens_BT)
        model.logits(hidden)
        if model.num_mtp:
            next_BT = F.pad(tokens_BT[:, 1:], (0, 1))
            model.mtp_logits(model.mtp_hidden(hidden, next_BT))
    return {name: mean.value() for name, mean in sums.items()}


class _MeanSquare:
    """Running mean of squares over rows."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.rows = 0

    def add(self, x: Tensor) -> None:
        x_NI = x.detach().float().flatten(0, -2)
        self.total = self.total + x_NI.square().sum(0)
        self.rows += len(x_NI)

    def value(self) -> Tensor:
        assert isinstance(self.total, Tensor)
        return self.total / self.rows


@contextmanager
def _watched(model: CausalLM, sums: dict[str, _MeanSquare]) -> Iterator[None]:
    """Every matrix of the model reports its inputs while this lasts."""
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            mean = sums.setdefault(f"{name}.weight", _MeanSquare())
            handles.append(module.register_forward_pre_hook(_linear_hook(mean)))
        elif isinstance(module, Experts):
            pair = [
                sums.setdefault(f"{name}.{leaf}", _MeanSquare())
                for leaf in ("gate_up_proj", "down_proj")
            ]
            handles.append(module.register_forward_pre_hook(_experts_hook(*pair)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for name in [name for name, mean in sums.items() if not mean.rows]:
        del sums[name]


def _linear_hook(mean: _MeanSquare):  # type: ignore[no-untyped-def]
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean.add(inputs[0])

    return hook


def _experts_hook(into: _MeanSquare, between: _MeanSquare):  # type: ignore[no-untyped-def]
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, Experts)
        x_ND, ids_NK, *_ = inputs
        into.add(x_ND)
        for expert in torch.unique(ids_NK).tolist():
            rows = (ids_NK == expert).any(1)
            weight = module.gate_up_proj[expert]
            wide = weight.dequantise() if isinstance(weight, Quantized) else weight
            gate, up = F.linear(x_ND[rows].float(), wide.float()).chunk(2, -1)
            between.add(F.silu(gate) * up)

    return hook
