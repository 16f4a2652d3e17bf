"""Native kernels that only training runs: attention over packed documents, feed-forward, the loss,
and the gradients of all three. As those in cpu.py they leave to `reference` what they do not take.

Legend: T tokens of the stream, H heads, Q query width, V value width; N tokens, E experts,
K chosen experts, C = N * K choices, D model width, F inner width, J = 2F, V vocabulary.
"""

from __future__ import annotations

from struct import Struct

import torch
from torch import Tensor

from ingle.kernels import reference
from ingle.kernels.library import alike, bound, check, ints, native

_documents_args = Struct("8qd2q").pack
_documents_grad_args = Struct("8qd5q").pack
_feed_forward_args = Struct("12q").pack
_feed_forward_grad_args = Struct("17q").pack
_cross_entropy_args = Struct("10q").pack

_document_attention, _document_attention_grad = map(
    bound, ("document_attention", "document_attention_grad")
)
_feed_forward, _feed_forward_grad, _cross_entropy = map(
    bound, ("feed_forward", "feed_forward_grad", "cross_entropy")
)


def document_attention(
    q_THQ: Tensor, k_THQ: Tensor, v_THV: Tensor, starts_T: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Causal attention inside each document of a packed stream: result and log-sums.

    Costs what the documents cost, not the stream's square. Raises IndexError for starts that
    describe no documents.
    """
    if not native(q_THQ, k_THQ) or not alike(k_THQ, v_THV):
        return reference.document_attention(q_THQ, k_THQ, v_THV, starts_T, scale)
    q, starts = q_THQ.contiguous(), ints(starts_T)
    y, log_sum = torch.empty_like(v_THV), q.new_empty(q.shape[:2])
    inputs = q.data_ptr(), k_THQ.data_ptr(), v_THV.data_ptr(), *q.shape, v_THV.shape[2]
    outputs = y.data_ptr(), log_sum.data_ptr()
    check(_document_attention(_documents_args(*inputs, starts.data_ptr(), scale, *outputs)))
    return y, log_sum


def document_attention_grad(
    q_THQ: Tensor, k_THQ: Tensor, v_THV: Tensor, starts_T: Tensor, scale: float,
    log_sum_TH: Tensor, y_grad_THV: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k and v of `document_attention`."""
    if not native(q_THQ, k_THQ) or not alike(k_THQ, v_THV, log_sum_TH):
        return reference.document_attention_grad(
            q_THQ, k_THQ, v_THV, starts_T, scale, log_sum_TH, y_grad_THV
        )
    q, starts, y_grad = q_THQ.contiguous(), ints(starts_T), y_grad_THV.contiguous()
    grads = torch.empty_like(q), torch.empty_like(k_THQ), torch.empty_like(v_THV)
    inputs = q.data_ptr(), k_THQ.data_ptr(), v_THV.data_ptr(), *q.shape, v_THV.shape[2]
    given = log_sum_TH.data_ptr(), y_grad.data_ptr()
    outputs = (grad.data_ptr() for grad in grads)
    packed = _documents_grad_args(*inputs, starts.data_ptr(), scale, *given, *outputs)
    check(_document_attention_grad(packed))
    return grads


def feed_forward(
    x_ND: Tensor, gate_up_EJD: Tensor, down_EDF: Tensor, ids_NK: Tensor, weights_NK: Tensor
) -> tuple[Tensor, Tensor]:
    """See `reference.feed_forward`; raises IndexError for an id that is no expert."""
    given = x_ND, gate_up_EJD, down_EDF, ids_NK, weights_NK
    if not _fp32(x_ND, gate_up_EJD, down_EDF, weights_NK):
        return reference.feed_forward(*given)
    y, pre = torch.empty_like(x_ND), x_ND.new_empty(ids_NK.numel(), gate_up_EJD.shape[1])
    ids = ints(ids_NK)
    packed = _feed_forward_args(*_feed_forward_fields(*given, ids), pre.data_ptr(), y.data_ptr())
    check(_feed_forward(packed))
    return y, pre


def feed_forward_grad(
    x_ND: Tensor, gate_up_EJD: Tensor, down_EDF: Tensor, ids_NK: Tensor, weights_NK: Tensor,
    pre_CJ: Tensor, y_grad_ND: Tensor, *, learns: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, the weights and both stacks of matrices; see `reference`."""
    given = x_ND, gate_up_EJD, down_EDF, ids_NK, weights_NK
    if not _fp32(x_ND, gate_up_EJD, down_EDF, weights_NK, pre_CJ, y_grad_ND):
        return reference.feed_forward_grad(*given, pre_CJ, y_grad_ND, learns=learns)
    x, weights, ids = torch.empty_like(x_ND), torch.empty_like(weights_NK), ints(ids_NK)
    gate_up, down = (t.new_empty(t.shape if learns else 0) for t in (gate_up_EJD, down_EDF))
    outputs = x.data_ptr(), weights.data_ptr(), gate_up.data_ptr(), down.data_ptr(), learns
    inputs = *_feed_forward_fields(*given, ids), pre_CJ.data_ptr(), y_grad_ND.data_ptr()
    check(_feed_forward_grad(_feed_forward_grad_args(*inputs, *outputs)))
    return x, weights, gate_up, down


def cross_entropy(
    x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, *, learns: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """See `reference.cross_entropy`; raises IndexError for a target beyond the vocabulary."""
    if not _fp32(x_ND, weight_VD):
        return reference.cross_entropy(x_ND, weight_VD, targets_N, learns=learns)
    targets, total, x_grad = ints(targets_N), x_ND.new_empty(()), torch.empty_like(x_ND)
    weight_grad = weight_VD.new_empty(weight_VD.shape if learns else 0)
    inputs = x_ND.data_ptr(), *x_ND.shape, weight_VD.data_ptr(), len(weight_VD), targets.data_ptr()
    outputs = total.data_ptr(), x_grad.data_ptr(), weight_grad.data_ptr(), learns
    check(_cross_entropy(_cross_entropy_args(*inputs, *outputs)))
    return total, x_grad, weight_grad


def _fp32(*tensors: Tensor) -> bool:
    return native(*tensors[:2]) and alike(*tensors) and all(t.is_contiguous() for t in tensors)


def _feed_forward_fields(
    x: Tensor, gate_up: Tensor, down: Tensor, ids_NK: Tensor, weights: Tensor, ids: Tensor
) -> tuple[int, ...]:
    """The struct FeedForward of native/api.h."""
    experts, width, inner = down.shape
    return (
        x.data_ptr(), x.shape[0], width, ids.data_ptr(), weights.data_ptr(), ids_NK.shape[1],
        gate_up.data_ptr(), down.data_ptr(), experts, inner,
    )  # fmt: skip
