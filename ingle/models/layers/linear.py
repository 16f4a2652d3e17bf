"""Matrices whose weight may be a parameter or, in a model that only serves, quantised."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ingle.kernels import quantized
from ingle.kernels.quantized import Quantized


class Linear(nn.Module):
    """`x @ weight.T + bias`."""

    weight: nn.Parameter | Quantized
    bias: nn.Parameter | None

    def __init__(self, inner: int, outs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outs, inner))
        self.bias = nn.Parameter(torch.empty(outs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.weight, Quantized):
            y = quantized.linear(x, self.weight)
            return y if self.bias is None else y + self.bias
        return F.linear(x, self.weight, self.bias)


class Embedding(nn.Module):
    """Rows of a table."""

    weight: nn.Parameter | Quantized

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))

    def forward(self, ids: Tensor) -> Tensor:
        table = self.weight
        if isinstance(table, Quantized):
            return Quantized(
                table.kind, table.data[ids], table.scale[ids], table.inner
            ).dequantise()
        return F.embedding(ids, table)


def replace_weight(module: nn.Module, name: str, weight: Quantized) -> None:
    """Put a quantised weight where a module has a parameter; such a model serves only."""
    module._parameters.pop(name, None)
    setattr(module, name, weight)
