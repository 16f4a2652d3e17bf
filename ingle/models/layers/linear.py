"""Matrices whose weight may be a parameter or, in a model that only serves, quantised."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ingle.kernels import quantized
from ingle.kernels.quantized import Quantized
from ingle.models.layers.projection import projections

# Weights of a matrix that operators of training pack, copy or hold several gradients of; torch
# multiplies larger ones well.
LARGEST = 1 << 22


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
        if self.training and x.dim() > 1 and plain(x, self):
            return projections(x, self.weight)[0]
        return F.linear(x, self.weight, self.bias)


def both(x: Tensor, first: Linear, second: Linear) -> list[Tensor]:
    """Two matrices applied to the same input."""
    if first.training and plain(x, first, second):
        assert isinstance(first.weight, Tensor) and isinstance(second.weight, Tensor)
        return projections(x, first.weight, second.weight)
    return [first(x), second(x)]


def plain(x: Tensor, *matrices: nn.Module) -> bool:
    """Whether the operators of training take these: fp32 on a CPU, and matrices that are no more
    than a parameter, and not large."""
    return x.is_cpu and x.dtype == torch.float32 and all(map(_simple, matrices))


def _simple(matrix: nn.Module) -> bool:
    if type(matrix) is not Linear or matrix.bias is not None:
        return False
    return isinstance(matrix.weight, Tensor) and matrix.weight.numel() <= LARGEST


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
