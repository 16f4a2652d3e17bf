"""SwiGLU of an MLP or of the chosen experts of a mixture as one operator: training on a CPU.

One product after the other would write and read every value between them; here a block of tokens
stays in the cache until its result is done. fp32 only: other types and GPUs take the products one
by one (moe.py), which is also what this is tested against.

Legend: N tokens, D model width, E experts, K chosen experts, C = N * K choices, F inner width,
J = 2F.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ingle import kernels


@torch.library.custom_op("ingle::feed_forward", mutates_args=(), device_types="cpu")
def _feed_forward(
    x_ND: Tensor, gate_up_EJD: Tensor, down_EDF: Tensor, ids_NK: Tensor, weights_NK: Tensor
) -> tuple[Tensor, Tensor]:
    inputs = (t.contiguous() for t in (x_ND, gate_up_EJD, down_EDF, ids_NK, weights_NK))
    return kernels.select().feed_forward(*inputs)


@_feed_forward.register_fake
def _(
    x_ND: Tensor, gate_up_EJD: Tensor, down_EDF: Tensor, ids_NK: Tensor, weights_NK: Tensor
) -> tuple[Tensor, Tensor]:
    return x_ND.new_empty(x_ND.shape), x_ND.new_empty(ids_NK.numel(), gate_up_EJD.shape[1])


@torch.library.custom_op("ingle::feed_forward_grad", mutates_args=(), device_types="cpu")
def _feed_forward_grad(
    x_ND: Tensor, gate_up_EJD: Tensor, down_EDF: Tensor, ids_NK: Tensor, weights_NK: Tensor,
    pre_CJ: Tensor, y_grad_ND: Tensor, learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """learns: False where the matrices are frozen, whose gradients are then empty."""
    given = (x_ND, gate_up_EJD, down_EDF, ids_NK, weights_NK, pre_CJ, y_grad_ND)
    return kernels.select().feed_forward_grad(*(t.contiguous() for t in given), learns=learns)


@_feed_forward_grad.register_fake
def _(
    x_ND: Tensor, gate_up_EJD: Tensor, down_EDF: Tensor, ids_NK: Tensor, weights_NK: Tensor,
    pre_CJ: Tensor, y_grad_ND: Tensor, learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    gate_up, down = (t.new_empty(t.shape if learns else 0) for t in (gate_up_EJD, down_EDF))
    return x_ND.new_empty(x_ND.shape), weights_NK.new_empty(weights_NK.shape), gate_up, down


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])


def _backward(ctx: Any, y_grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    learns = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
    x, weights, gate_up, down = _feed_forward_grad(*ctx.saved_tensors, y_grad, learns)
    return (x, gate_up, down, None, weights) if learns else (x, None, None, None, weights)


_feed_forward.register_autograd(_backward, setup_context=_save)


def feed_forward(
    x_ND: Tensor, gate_up_EJD: Tensor, down_EDF: Tensor, ids_NK: Tensor, weights_NK: Tensor
) -> Tensor:
    """`sum_k weights[n, k] * down_e( silu(gate_e x[n]) * up_e x[n] )` with e = ids[n, k].

    Differentiable. gate_up_EJD stacks gate over up. Raises IndexError for an id (int32) that names
    no expert.
    """
    return _feed_forward(x_ND, gate_up_EJD, down_EDF, ids_NK, weights_NK)[0]
