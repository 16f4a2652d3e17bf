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


def both(x: Tensor, first: Linear, second: Linear) -> tuple[Tensor, Tensor]:
    """Two matrices applied to the same input; in training as one product, which reads it once."""
    alike = all(type(m) is Linear and isinstance(m.weight, Tensor) for m in (first, second))
    if not first.training or not alike or first.bias is not None or second.bias is not None:
        return first(x), second(x)
    assert isinstance(first.weight, Tensor) and isinstance(second.weight, Tensor)
    y = F.linear(x, torch.cat([first.weight, second.weight]))
    return y.tensor_split([first.weight.shape[0]], -1)  # type: ignore[return-value]


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
