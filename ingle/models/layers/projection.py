"""One or two matrices applied to the same rows, as one operator: training on a CPU.

Its products read a matrix that is packed once (kernels/native/projection.cpp), and its gradients
take a block of rows together. fp32 only: other types, GPUs and serving multiply by F.linear, which
is also what this is tested against.

Legend: N rows, I inputs, O outputs of a matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ingle import kernels


@torch.library.custom_op("ingle::projections", mutates_args=(), device_types="cpu")
def _projections(x_NI: Tensor, weights_OI: Sequence[Tensor]) -> list[Tensor]:
    weights = (weight.contiguous() for weight in weights_OI)
    return list(kernels.select().projections(x_NI.contiguous(), *weights))


@_projections.register_fake
def _(x_NI: Tensor, weights_OI: Sequence[Tensor]) -> list[Tensor]:
    return [x_NI.new_empty(x_NI.shape[0], weight.shape[0]) for weight in weights_OI]


@torch.library.custom_op("ingle::projections_grad", mutates_args=(), device_types="cpu")
def _projections_grad(
    x_NI: Tensor, weights_OI: Sequence[Tensor], y_grads_NO: Sequence[Tensor], learns: bool
) -> list[Tensor]:
    """learns: False where the matrices are frozen, whose gradients are then empty."""
    weights, grads = ([t.contiguous() for t in some] for some in (weights_OI, y_grads_NO))
    found = kernels.select().projections_grad(x_NI.contiguous(), weights, grads, learns=learns)
    return list(found)


@_projections_grad.register_fake
def _(
    x_NI: Tensor, weights_OI: Sequence[Tensor], y_grads_NO: Sequence[Tensor], learns: bool
) -> list[Tensor]:
    grads = [weight.new_empty(weight.shape if learns else 0) for weight in weights_OI]
    return [x_NI.new_empty(x_NI.shape), *grads]


def _save(ctx: Any, inputs: tuple[Tensor, Sequence[Tensor]], output: list[Tensor]) -> None:
    x, weights = inputs
    ctx.learns = any(weight.requires_grad for weight in weights)
    ctx.save_for_backward(x, *weights)


def _backward(ctx: Any, y_grads: list[Tensor]) -> tuple[Tensor, list[Tensor | None]]:
    x, *weights = ctx.saved_tensors
    x_grad, *grads = _projections_grad(x, weights, y_grads, ctx.learns)
    return x_grad, grads if ctx.learns else [None] * len(weights)


_projections.register_autograd(_backward, setup_context=_save)


def projections(x: Tensor, *weights_OI: Tensor) -> list[Tensor]:
    """`x @ weight.T` over the last dimension of x, for each of one or two matrices; differentiable.

    fp32 on a CPU.
    """
    found = _projections(x.flatten(0, -2), weights_OI)
    return [y.unflatten(0, x.shape[:-1]) for y in found]
