"""Attention over packed documents as an operator that autograd and torch.compile know.

On a CPU it is computed in fp32 whatever the inputs are; on a GPU products take the inputs as they
are. Its log-sums are fp32 in any case: one rounded to bf16 would be off by a percent of every
weight.

Legend: T tokens of the stream, H heads, Q query width, V value width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ingle import kernels


@torch.library.custom_op("ingle::document_attention", mutates_args=(), device_types="cpu")
def _attention(
    q_THQ: Tensor, k_THQ: Tensor, v_THV: Tensor, starts_T: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    q, k, v = (x.float().contiguous() for x in (q_THQ, k_THQ, v_THV))
    y, log_sum = kernels.select().document_attention(q, k, v, starts_T, scale)
    return y.to(v_THV.dtype), log_sum


@_attention.register_kernel("cuda")
def _(
    q_THQ: Tensor, k_THQ: Tensor, v_THV: Tensor, starts_T: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    from ingle.kernels import triton

    return triton.document_attention(q_THQ, k_THQ, v_THV, starts_T, scale)


@_attention.register_fake
def _(
    q_THQ: Tensor, k_THQ: Tensor, v_THV: Tensor, starts_T: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    return v_THV.new_empty(v_THV.shape), q_THQ.new_empty(q_THQ.shape[:2], dtype=torch.float32)


@torch.library.custom_op("ingle::document_attention_grad", mutates_args=(), device_types="cpu")
def _attention_grad(
    q_THQ: Tensor, k_THQ: Tensor, v_THV: Tensor, starts_T: Tensor, scale: float,
    log_sum_TH: Tensor, y_grad_THV: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    q, k, v, y_grad = (x.float().contiguous() for x in (q_THQ, k_THQ, v_THV, y_grad_THV))
    grads = kernels.select().document_attention_grad(q, k, v, starts_T, scale, log_sum_TH, y_grad)
    q_grad, k_grad, v_grad = (grad.to(v_THV.dtype) for grad in grads)
    return q_grad, k_grad, v_grad


@_attention_grad.register_kernel("cuda")
def _(
    q_THQ: Tensor, k_THQ: Tensor, v_THV: Tensor, starts_T: Tensor, scale: float,
    log_sum_TH: Tensor, y_grad_THV: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    from ingle.kernels import triton

    return triton.document_attention_grad(
        q_THQ, k_THQ, v_THV, starts_T, scale, log_sum_TH, y_grad_THV
    )


@_attention_grad.register_fake
def _(
    q_THQ: Tensor, k_THQ: Tensor, v_THV: Tensor, starts_T: Tensor, scale: float,
    log_sum_TH: Tensor, y_grad_THV: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return tuple(x.new_empty(x.shape) for x in (q_THQ, k_THQ, v_THV))  # type: ignore[return-value]


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, output[1])


def _backward(ctx: Any, y_grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, starts, log_sum = ctx.saved_tensors
    return *_attention_grad(q, k, v, starts, ctx.scale, log_sum, y_grad), None, None


_attention.register_autograd(_backward, setup_context=_save)


def document_attention(
    q_THQ: Tensor, k_THQ: Tensor, v_THV: Tensor, starts_T: Tensor, scale: float
) -> Tensor:
    """Causal attention of every token inside its own document; differentiable. [T, H, V].

    starts_T (int32): index of the first token of each token's document.
    """
    return _attention(q_THQ, k_THQ, v_THV, starts_T, scale)[0]
