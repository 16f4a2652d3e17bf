"""Native kernels that only training runs: attention over packed documents, matrices, feed-forward,
the loss, and the gradients of all of them. As those in cpu.py they leave to `reference` what they
do not take.

Legend: T tokens of the stream, H heads, Q query width, V value width, R rotary width, P = R/2,
X = Q - R + V; N tokens or rows, I inputs, O outputs, E experts, K chosen experts, C = N * K
choices, D model width, F inner width, J = 2F, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

import torch
from torch import Tensor

from ingle.kernels import reference
from ingle.kernels.library import alike, bound, check, ints, native

_attention_args = Struct("14qd7q").pack
_attention_grad_args = Struct("14qd17q").pack
_projection_args = Struct("9q").pack
_projection_grad_args = Struct("13q").pack
_feed_forward_args = Struct("15q").pack
_feed_forward_grad_args = Struct("22q").pack
_cross_entropy_args = Struct("10q").pack

_attention, _attention_grad = map(bound, ("document_attention", "document_attention_grad"))
_projection, _projection_grad = map(bound, ("projection", "projection_grad"))
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
    rows = *_heads(q), *_heads(k_THQ), *_heads(v_THV), *q.shape, v_THV.shape[2]
    outputs = y.data_ptr(), log_sum.data_ptr()
    check(_attention(_attention_args(*rows, starts.data_ptr(), scale, *_UNTURNED, *outputs)))
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
    rows = *_heads(q), *_heads(k_THQ), *_heads(v_THV), *q.shape, v_THV.shape[2]
    given = starts.data_ptr(), scale, *_UNTURNED, log_sum_TH.data_ptr(), y_grad.data_ptr()
    outputs = *(part for grad in grads for part in _heads(grad)), 0
    check(_attention_grad(_attention_grad_args(*rows, *given, *outputs)))
    return grads


def latent_attention(
    q_THQ: Tensor, kv_THX: Tensor, key_TR: Tensor, cos_TP: Tensor, sin_TP: Tensor,
    starts_T: Tensor, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `reference.latent_attention`; raises IndexError as `document_attention`."""
    given = q_THQ, kv_THX, key_TR, cos_TP, sin_TP, starts_T
    if not _fp32(q_THQ, kv_THX, cos_TP, sin_TP) or not _rows_fit(key_TR):
        return reference.latent_attention(*given, scale)
    starts, (tokens, heads, width) = ints(starts_T), q_THQ.shape
    y = q_THQ.new_empty(tokens, heads, kv_THX.shape[2] - width + key_TR.shape[1])
    log_sum = q_THQ.new_empty(tokens, heads)
    fields = _latent_fields(*given[:5], starts, scale)
    check(_attention(_attention_args(*fields, y.data_ptr(), log_sum.data_ptr())))
    return y, log_sum


def latent_attention_grad(
    q_THQ: Tensor, kv_THX: Tensor, key_TR: Tensor, cos_TP: Tensor, sin_TP: Tensor,
    starts_T: Tensor, scale: float, log_sum_TH: Tensor, y_grad_THV: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, kv and key of `latent_attention`."""
    given = q_THQ, kv_THX, key_TR, cos_TP, sin_TP, starts_T
    if not _fp32(q_THQ, kv_THX, cos_TP, sin_TP, log_sum_TH, y_grad_THV) or not _rows_fit(key_TR):
        return reference.latent_attention_grad(*given, scale, log_sum_TH, y_grad_THV)
    starts, plain = ints(starts_T), q_THQ.shape[2] - key_TR.shape[1]
    q_grad, kv_grad = torch.empty_like(q_THQ), torch.empty_like(kv_THX)
    key_grad = key_TR.new_empty(key_TR.shape)
    parts = *_heads(q_grad), *_heads(kv_grad), *_heads(kv_grad[..., plain:])
    outputs = log_sum_TH.data_ptr(), y_grad_THV.data_ptr(), *parts, key_grad.data_ptr()
    fields = _latent_fields(*given[:5], starts, scale)
    check(_attention_grad(_attention_grad_args(*fields, *outputs)))
    return q_grad, kv_grad, key_grad


def projections(x_NI: Tensor, *weights_OI: Tensor) -> tuple[Tensor, ...]:
    """See `reference.projections`."""
    if not _fp32(x_NI, *weights_OI):
        return reference.projections(x_NI, *weights_OI)
    found = tuple(x_NI.new_empty(len(x_NI), len(weight)) for weight in weights_OI)
    fields = *_projection_fields(x_NI, weights_OI), *_two(found)
    check(_projection(_projection_args(*fields)))
    return found


def projections_grad(
    x_NI: Tensor, weights_OI: Sequence[Tensor], y_grads_NO: Sequence[Tensor], *, learns: bool = True
) -> tuple[Tensor, ...]:
    """See `reference.projections_grad`."""
    if not _fp32(x_NI, *weights_OI, *y_grads_NO):
        return reference.projections_grad(x_NI, weights_OI, y_grads_NO, learns=learns)
    x_grad = torch.empty_like(x_NI)
    grads = tuple(weight.new_empty(weight.shape if learns else 0) for weight in weights_OI)
    outputs = x_grad.data_ptr(), *_two(grads), learns
    fields = *_projection_fields(x_NI, weights_OI), *_two(y_grads_NO), *outputs
    check(_projection_grad(_projection_grad_args(*fields)))
    return x_grad, *grads


def feed_forward(
    x_ND: Tensor, gate_ups_EJD: Sequence[Tensor], downs_EDF: Sequence[Tensor], ids_NK: Tensor,
    weights_NK: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `reference.feed_forward`; raises IndexError for an id that is no expert."""
    given = x_ND, gate_ups_EJD, downs_EDF, ids_NK, weights_NK
    if not _fp32(x_ND, *gate_ups_EJD, *downs_EDF, weights_NK):
        return reference.feed_forward(*given)
    y, pre = torch.empty_like(x_ND), x_ND.new_empty(ids_NK.numel(), gate_ups_EJD[0].shape[1])
    ids = ints(ids_NK)
    packed = _feed_forward_args(*_feed_forward_fields(*given, ids), pre.data_ptr(), y.data_ptr())
    check(_feed_forward(packed))
    return y, pre


def feed_forward_grad(
    x_ND: Tensor, gate_ups_EJD: Sequence[Tensor], downs_EDF: Sequence[Tensor], ids_NK: Tensor,
    weights_NK: Tensor, pre_CJ: Tensor, y_grad_ND: Tensor, *, learns: bool = True,
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    """See `reference.feed_forward_grad`."""
    given = x_ND, gate_ups_EJD, downs_EDF, ids_NK, weights_NK
    if not _fp32(x_ND, *gate_ups_EJD, *downs_EDF, weights_NK, pre_CJ, y_grad_ND):
        return reference.feed_forward_grad(*given, pre_CJ, y_grad_ND, learns=learns)
    x, weights, ids = torch.empty_like(x_ND), torch.empty_like(weights_NK), ints(ids_NK)
    gate_ups, downs = (
        [t.new_empty(t.shape if learns else 0) for t in stacks]
        for stacks in (gate_ups_EJD, downs_EDF)
    )
    outputs = x.data_ptr(), weights.data_ptr(), *_two(gate_ups), *_two(downs), learns
    inputs = *_feed_forward_fields(*given, ids), pre_CJ.data_ptr(), y_grad_ND.data_ptr()
    check(_feed_forward_grad(_feed_forward_grad_args(*inputs, *outputs)))
    return x, weights, gate_ups, downs


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


_UNTURNED = (0,) * 5  # queries and keys of document_attention are complete


def _heads(x_THV: Tensor) -> tuple[int, int, int]:
    """The struct Heads of native/api.h."""
    return x_THV.data_ptr(), x_THV.stride(0), x_THV.stride(1)


def _rows_fit(x: Tensor) -> bool:
    return x.dtype is torch.float32 and x.is_cpu and x.stride(1) == 1


def _latent_fields(
    q: Tensor, kv: Tensor, key: Tensor, cos: Tensor, sin: Tensor, starts: Tensor, scale: float
) -> tuple[float, ...]:
    """The struct Documents of native/api.h."""
    rotary, plain = key.shape[1], q.shape[2] - key.shape[1]
    return (
        *_heads(q), *_heads(kv), *_heads(kv[..., plain:]), *q.shape, kv.shape[2] - plain,
        starts.data_ptr(), scale, rotary, key.data_ptr(), key.stride(0), cos.data_ptr(),
        sin.data_ptr(),
    )  # fmt: skip


def _two(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """The addresses of one or two tensors."""
    return tensors[0].data_ptr(), tensors[1].data_ptr() if len(tensors) > 1 else 0


def _projection_fields(x: Tensor, weights: Sequence[Tensor]) -> tuple[int, ...]:
    """The struct Projection of native/api.h."""
    outs = len(weights[0]), len(weights[1]) if len(weights) > 1 else 0
    return x.data_ptr(), *x.shape, *_two(weights), *outs


def _feed_forward_fields(
    x: Tensor, gate_ups: Sequence[Tensor], downs: Sequence[Tensor], ids_NK: Tensor,
    weights: Tensor, ids: Tensor,
) -> tuple[int, ...]:  # fmt: skip
    """The struct FeedForward of native/api.h."""
    _, width, inner = downs[0].shape
    experts = len(downs[0]), len(downs[1]) if len(downs) > 1 else 0
    return (
        x.data_ptr(), x.shape[0], width, ids.data_ptr(), weights.data_ptr(), ids_NK.shape[1],
        *_two(gate_ups), *_two(downs), *experts, inner,
    )  # fmt: skip
