"""SwiGLU of an MLP or of the chosen experts of a mixture as one operator: training on a CPU.

One product after the other would write and read every value between them; here a block of tokens
stays in the cache until its result is done. fp32 only: other types and GPUs take the products one
by one (moe.py), which is also what this is tested against.

Legend: N tokens, D model width, E experts, K chosen experts, C = N * K choices, F inner width,
J = 2F.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ingle import kernels


@torch.library.custom_op("ingle::feed_forward", mutates_args=(), device_types="cpu")
def _feed_forward(
    x_ND: Tensor, gate_ups_EJD: Sequence[Tensor], downs_EDF: Sequence[Tensor], ids_NK: Tensor,
    weights_NK: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    x, ids, weights = (t.contiguous() for t in (x_ND, ids_NK, weights_NK))
    stacks = ([t.contiguous() for t in some] for some in (gate_ups_EJD, downs_EDF))
    return kernels.select().feed_forward(x, *stacks, ids, weights)


@_feed_forward.register_fake
def _(
    x_ND: Tensor, gate_ups_EJD: Sequence[Tensor], downs_EDF: Sequence[Tensor], ids_NK: Tensor,
    weights_NK: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return x_ND.new_empty(x_ND.shape), x_ND.new_empty(ids_NK.numel(), gate_ups_EJD[0].shape[1])


@torch.library.custom_op("ingle::feed_forward_grad", mutates_args=(), device_types="cpu")
def _feed_forward_grad(
    x_ND: Tensor, gate_ups_EJD: Sequence[Tensor], downs_EDF: Sequence[Tensor], ids_NK: Tensor,
    weights_NK: Tensor, pre_CJ: Tensor, y_grad_ND: Tensor, learns: bool,
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    """learns: False where the matrices are frozen, whose gradients are then empty."""
    given = x_ND, ids_NK, weights_NK, pre_CJ, y_grad_ND
    x, ids, weights, pre, y_grad = (t.contiguous() for t in given)
    stacks = ([t.contiguous() for t in some] for some in (gate_ups_EJD, downs_EDF))
    return kernels.select().feed_forward_grad(x, *stacks, ids, weights, pre, y_grad, learns=learns)


@_feed_forward_grad.register_fake
def _(
    x_ND: Tensor, gate_ups_EJD: Sequence[Tensor], downs_EDF: Sequence[Tensor], ids_NK: Tensor,
    weights_NK: Tensor, pre_CJ: Tensor, y_grad_ND: Tensor, learns: bool,
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    gate_ups, downs = (
        [t.new_empty(t.shape if learns else 0) for t in some] for some in (gate_ups_EJD, downs_EDF)
    )
    return x_ND.new_empty(x_ND.shape), weights_NK.new_empty(weights_NK.shape), gate_ups, downs


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    x, gate_ups, downs, *routes = inputs
    ctx.learns = any(stack.requires_grad for stack in (*gate_ups, *downs))
    ctx.stacks = len(downs)
    ctx.save_for_backward(x, *gate_ups, *downs, *routes, output[1])


def _backward(ctx: Any, y_grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    x, *stacks = ctx.saved_tensors
    ids, weights, pre = stacks[2 * ctx.stacks :]
    gate_ups, downs = stacks[: ctx.stacks], stacks[ctx.stacks : 2 * ctx.stacks]
    given = x, gate_ups, downs, ids, weights, pre, y_grad
    x_grad, weights_grad, *grads = _feed_forward_grad(*given, ctx.learns)
    if not ctx.learns:
        grads = [[None] * ctx.stacks] * 2
    return x_grad, *grads, None, weights_grad


_feed_forward.register_autograd(_backward, setup_context=_save)


def feed_forward(
    x_ND: Tensor, gate_ups_EJD: Sequence[Tensor], downs_EDF: Sequence[Tensor], ids_NK: Tensor,
    weights_NK: Tensor,
) -> Tensor:  # fmt: skip
    """`sum_k weights[n, k] * down_e( silu(gate_e x[n]) * up_e x[n] )` with e = ids[n, k].

    Differentiable. gate_ups_EJD, downs_EDF: the experts in one or two stacks, which count on; gate
    lies above up. Raises IndexError for an id (int32) that names no expert.
    """
    return _feed_forward(x_ND, gate_ups_EJD, downs_EDF, ids_NK, weights_NK)[0]
