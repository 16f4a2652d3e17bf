"""Root-mean-square normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ingle.kernels import reference


class RMSNorm(nn.Module):
    """`weight * x / rms(x)` with fp32 statistics (arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return reference.rms_norm(x, self.weight, self.eps)
