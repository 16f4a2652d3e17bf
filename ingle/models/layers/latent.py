"""Attention over packed documents from what latent attention's projections make, as one operator.

Queries and keys are turned to their positions and joined while the kernel copies their rows
(kernels/native/documents.cpp): whole ones, and their gradients, never lie in memory. CPUs only, in
fp32 whatever the inputs are; mla.py does the same step by step for the others.

Legend: T tokens of the stream, H heads, Q query width, V value width, R rotary width, P = R/2
pairs, X = Q - R + V.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ingle import kernels


@torch.library.custom_op("ingle::latent_attention", mutates_args=(), device_types="cpu")
def _attention(
    q_THQ: Tensor, kv_THX: Tensor, key_TR: Tensor, cos_TP: Tensor, sin_TP: Tensor,
    starts_T: Tensor, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    q, kv, cos, sin = (x.float().contiguous() for x in (q_THQ, kv_THX, cos_TP, sin_TP))
    given = q, kv, key_TR.float(), cos, sin
    y, log_sum = kernels.select().latent_attention(*given, starts_T, scale)
    return y.to(q_THQ.dtype), log_sum


@_attention.register_fake
def _(
    q_THQ: Tensor, kv_THX: Tensor, key_TR: Tensor, cos_TP: Tensor, sin_TP: Tensor,
    starts_T: Tensor, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    tokens, heads, width = q_THQ.shape
    value = kv_THX.shape[2] - width + key_TR.shape[1]
    log_sum = q_THQ.new_empty(tokens, heads, dtype=torch.float32)
    return q_THQ.new_empty(tokens, heads, value), log_sum


@torch.library.custom_op("ingle::latent_attention_grad", mutates_args=(), device_types="cpu")
def _attention_grad(
    q_THQ: Tensor, kv_THX: Tensor, key_TR: Tensor, cos_TP: Tensor, sin_TP: Tensor,
    starts_T: Tensor, scale: float, log_sum_TH: Tensor, y_grad_THV: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    q, kv, cos, sin, y_grad = (
        x.float().contiguous() for x in (q_THQ, kv_THX, cos_TP, sin_TP, y_grad_THV)
    )
    grads = kernels.select().latent_attention_grad(
        q, kv, key_TR.float(), cos, sin, starts_T, scale, log_sum_TH, y_grad
    )
    q_grad, kv_grad, key_grad = (grad.to(q_THQ.dtype) for grad in grads)
    return q_grad, kv_grad, key_grad


@_attention_grad.register_fake
def _(
    q_THQ: Tensor, kv_THX: Tensor, key_TR: Tensor, cos_TP: Tensor, sin_TP: Tensor,
    starts_T: Tensor, scale: float, log_sum_TH: Tensor, y_grad_THV: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    q, kv, key = (x.new_empty(x.shape) for x in (q_THQ, kv_THX, key_TR))
    return q, kv, key


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, output[1])


def _backward(ctx: Any, y_grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, log_sum = ctx.saved_tensors
    return *_attention_grad(*tensors, ctx.scale, log_sum, y_grad), None, None, None, None


_attention.register_autograd(_backward, setup_context=_save)


def latent_attention(
    q_THQ: Tensor, kv_THX: Tensor, key_TR: Tensor, cos_TP: Tensor, sin_TP: Tensor,
    starts_T: Tensor, scale: float,
) -> Tensor:  # fmt: skip
    """Causal attention of every token inside its own document; differentiable. [T, H, V].

    kv_THX: keys without their rotary part, then values, of every head. key_TR: the rotary part of
    the keys, the same for all heads. starts_T (int32): as in documents.py.
    """
    return _attention(q_THQ, kv_THX, key_TR, cos_TP, sin_TP, starts_T, scale)[0]
