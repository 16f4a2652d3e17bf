"""Cross-entropy of a head as one operator: the logits of a stream never lie in memory.

The gradient is computed together with the loss, from logits that are still in the cache; the way
back only scales it. fp32 on a CPU and small heads only: the plain way (training/loss.py) is for all
else, and is what this is tested against.

Legend: N tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ingle import kernels
from ingle.models.layers.linear import Linear


@torch.library.custom_op("ingle::cross_entropy", mutates_args=(), device_types="cpu")
def _cross_entropy(
    x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, learns: bool
) -> tuple[Tensor, Tensor, Tensor]:
    given = x_ND.contiguous(), weight_VD.contiguous(), targets_N.contiguous()
    return kernels.select().cross_entropy(*given, learns=learns)


@_cross_entropy.register_fake
def _(
    x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, learns: bool
) -> tuple[Tensor, Tensor, Tensor]:
    weight_grad = weight_VD.new_empty(weight_VD.shape if learns else 0)
    return x_ND.new_empty(()), x_ND.new_empty(x_ND.shape), weight_grad


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.learns = inputs[3]
    ctx.save_for_backward(output[1], output[2])


def _backward(ctx: Any, total_grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x_grad, weight_grad = ctx.saved_tensors
    return total_grad * x_grad, total_grad * weight_grad if ctx.learns else None, None, None


_cross_entropy.register_autograd(_backward, setup_context=_save)


def cross_entropy(x_ND: Tensor, head: Linear, targets_N: Tensor) -> Tensor:
    """Summed cross-entropy of `head(x)`, a scalar; rows with a negative target have none. Takes
    what is `plain` (linear.py).

    Differentiable. Raises IndexError for a target beyond the vocabulary.
    """
    weight = head.weight
    assert isinstance(weight, Tensor)
    return _cross_entropy(x_ND, weight, targets_N.int(), weight.requires_grad)[0]
