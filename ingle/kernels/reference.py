"""Plain torch: the truth every faster kernel tier is tested against.

Legend: N rows, I/O in/out features, D model width, H heads, L kv_lora_rank, R rope width,
Q = qk_nope + R, V v_head_dim, E experts, K chosen experts, F expert width, S sequences, P pages,
G page tokens, C cached values per token (L + R; in grouped-query attention 2 K Q, K key heads).
Statistics and routing are fp32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ingle.kernels import quantized
from ingle.kernels.quantized import Quantized

name = "reference"


def activation_dtype(weights: torch.dtype) -> torch.dtype:
    """Dtype of activations for weights of this dtype: the same, as in any plain torch model."""
    return weights


def linear(x_NI: Tensor, weight_OI: Tensor | Quantized) -> Tensor:
    """`x @ weight.T`; the result has x's dtype."""
    if isinstance(weight_OI, Quantized):
        return quantized.linear(x_NI, weight_OI)
    return F.linear(x_NI, weight_OI)


def rms_norm(x_ND: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last dimension, statistics in fp32 (arXiv 1910.07467)."""
    x = x_ND.float()
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return weight_D * x.to(x_ND.dtype)


def rope_(
    x_NHQ: Tensor, cos_TR: Tensor, sin_TR: Tensor, positions_N: Tensor, half_split: bool = False
) -> None:
    """Rotate the last R of Q values of every head in place.

    Pairs are neighbours, (x0,x1), (x2,x3)..., or with half_split (x[i], x[i + R/2]).
    cos_TR, sin_TR: [positions, R/2] fp32 tables.
    """
    half = cos_TR.shape[-1]
    cos, sin = cos_TR[positions_N.long(), None], sin_TR[positions_N.long(), None]
    rope = x_NHQ[..., -2 * half :]
    first, second = (
        (rope[..., :half], rope[..., half:]) if half_split else (rope[..., 0::2], rope[..., 1::2])
    )
    a, b = first.float(), second.float()
    first[:], second[:] = a * cos - b * sin, a * sin + b * cos


def write_latent(
    kv_NC: Tensor,
    norm_L: Tensor,
    eps: float,
    cos_TR: Tensor,
    sin_TR: Tensor,
    positions_N: Tensor,
    slots_N: Tensor,
    cache_PGC: Tensor,
) -> None:
    """Norm the latent part of `kv_a_proj_with_mqa`'s output, rotate its key part, store both."""
    rank = norm_L.shape[0]
    latent = rms_norm(kv_NC[:, :rank], norm_L, eps)
    key = kv_NC[:, None, rank:].clone()
    rope_(key, cos_TR, sin_TR, positions_N)
    flat = cache_PGC.view(-1, cache_PGC.shape[-1])
    flat[slots_N.long()] = torch.cat([latent, key[:, 0]], -1).to(flat.dtype)


def mla_attention(
    q_NHQ: Tensor,
    kv_b_OL: Tensor,
    cache_PGC: Tensor,
    pages_SP: Tensor,
    sequence_N: Tensor,
    positions_N: Tensor,
    scale: float,
) -> Tensor:
    """Absorbed multi-head latent attention over paged latents (arXiv 2405.04434, section 2.1).

    q_NHQ is already rotated. kv_b_OL is `kv_b_proj.weight`, [H * (nope + V), L]: its nope rows are
    absorbed into the query, its V rows into the output, so that keys and values are never formed.
    Row n sees positions 0..positions_N[n] of its sequence. Returns [N, H * V] in q's dtype.
    """
    rows, heads, width = q_NHQ.shape
    rank = kv_b_OL.shape[1]
    rope = cache_PGC.shape[-1] - rank
    nope = width - rope
    w_HOL = kv_b_OL.view(heads, -1, rank)
    q_latent = torch.einsum("nhd,hdl->nhl", q_NHQ[..., :nope], w_HOL[:, :nope])
    q_NHC = torch.cat([q_latent, q_NHQ[..., nope:]], -1).float()
    out_NHL = torch.empty(rows, heads, rank)
    for n in range(rows):
        length = int(positions_N[n]) + 1
        pages = pages_SP[sequence_N[n].long()].long()
        used = pages[: -(-length // cache_PGC.shape[1])]
        keys_TC = cache_PGC[used].flatten(0, 1)[:length].float()
        weights_HT = torch.softmax(q_NHC[n] @ keys_TC.T * scale, -1)
        out_NHL[n] = weights_HT @ keys_TC[:, :rank]
    out = torch.einsum("nhl,hvl->nhv", out_NHL.to(q_NHQ.dtype), w_HOL[:, nope:])
    return out.flatten(1)


def write_keys(k_NKQ: Tensor, v_NKV: Tensor, slots_N: Tensor, cache_PGC: Tensor) -> None:
    """Store rotated keys and values of each row: all keys, then all values."""
    flat = cache_PGC.view(-1, cache_PGC.shape[-1])
    flat[slots_N.long()] = torch.cat([k_NKQ.flatten(1), v_NKV.flatten(1)], -1).to(flat.dtype)


def gqa_attention(
    q_NHQ: Tensor, cache_PGC: Tensor, pages_SP: Tensor, sequence_N: Tensor, positions_N: Tensor,
    key_heads: int, scale: float,
) -> Tensor:  # fmt: skip
    """Grouped-query attention over paged keys and values (arXiv 2305.13245).

    Row n sees positions 0..positions_N[n] of its sequence. Returns [N, H * Q] in q's dtype.
    """
    rows, heads, width = q_NHQ.shape
    out_NHQ = torch.empty(rows, heads, width)
    for n in range(rows):
        length = int(positions_N[n]) + 1
        pages = pages_SP[sequence_N[n].long()].long()[: -(-length // cache_PGC.shape[1])]
        cached_TC = cache_PGC[pages].flatten(0, 1)[:length].float()
        k_KTQ, v_KTQ = (
            part.view(length, key_heads, width).transpose(0, 1) for part in cached_TC.chunk(2, -1)
        )
        q_KHQ = q_NHQ[n].float().view(key_heads, -1, width)
        weights_KHT = torch.softmax(q_KHQ @ k_KTQ.mT * scale, -1)
        out_NHQ[n] = (weights_KHT @ v_KTQ).view(heads, width)
    return out_NHQ.to(q_NHQ.dtype).flatten(1)


def document_attention(
    q_THQ: Tensor, k_THQ: Tensor, v_THV: Tensor, starts_T: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Causal attention inside each document of a packed stream; what training runs.

    starts_T: index of the first token of each token's document. Returns the result [T, H, V] and
    log(sum(exp(scores))) of every row and head [T, H], which the gradient starts from.
    """
    q, k = q_THQ.transpose(0, 1), k_THQ.transpose(0, 1)
    scores_HTT = (q @ k.mT * scale).masked_fill(~_visible(starts_T), float("-inf"))
    y_HTV = torch.softmax(scores_HTT, -1) @ v_THV.transpose(0, 1)
    return y_HTV.transpose(0, 1).contiguous(), scores_HTT.logsumexp(-1).T.contiguous()


def document_attention_grad(
    q_THQ: Tensor, k_THQ: Tensor, v_THV: Tensor, starts_T: Tensor, scale: float,
    log_sum_TH: Tensor, y_grad_THV: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k and v; the weights are computed again from `log_sum_TH`."""
    q, k, v, y_grad = (x.transpose(0, 1) for x in (q_THQ, k_THQ, v_THV, y_grad_THV))
    scores_HTT = (q @ k.mT * scale).masked_fill(~_visible(starts_T), float("-inf"))
    weights_HTT = (scores_HTT - log_sum_TH.T[..., None]).exp()
    slope = y_grad @ v.mT
    slope = weights_HTT * (slope - (weights_HTT * slope).sum(-1, keepdim=True)) * scale
    grads = slope @ k, slope.mT @ q, weights_HTT.mT @ y_grad
    q_grad, k_grad, v_grad = (grad.transpose(0, 1).contiguous() for grad in grads)
    return q_grad, k_grad, v_grad


def latent_attention(
    q_THQ: Tensor, kv_THX: Tensor, key_TR: Tensor, cos_TP: Tensor, sin_TP: Tensor,
    starts_T: Tensor, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`document_attention` of what the projections of latent attention make.

    kv_THX: keys without their rotary part, then values. key_TR: the rotary part of the keys of all
    heads. It and the last R values of the queries are turned here. P = R/2 pairs of neighbours.
    """
    q, k, v = _joined(q_THQ, kv_THX, key_TR, cos_TP, sin_TP)
    return document_attention(q, k, v, starts_T, scale)


def latent_attention_grad(
    q_THQ: Tensor, kv_THX: Tensor, key_TR: Tensor, cos_TP: Tensor, sin_TP: Tensor,
    starts_T: Tensor, scale: float, log_sum_TH: Tensor, y_grad_THV: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, kv and key."""
    q, k, v = _joined(q_THQ, kv_THX, key_TR, cos_TP, sin_TP)
    q_grad, k_grad, v_grad = document_attention_grad(
        q, k, v, starts_T, scale, log_sum_TH, y_grad_THV
    )
    plain = q.shape[2] - key_TR.shape[1]
    back = _turn(q_grad[..., plain:], cos_TP[:, None], -sin_TP[:, None])
    q_grad = torch.cat([q_grad[..., :plain], back], -1)
    kv_grad = torch.cat([k_grad[..., :plain], v_grad], -1)
    return q_grad, kv_grad, _turn(k_grad[..., plain:].sum(1), cos_TP, -sin_TP)


def _joined(
    q_THQ: Tensor, kv_THX: Tensor, key_TR: Tensor, cos_TP: Tensor, sin_TP: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Whole queries, keys and values."""
    plain = q_THQ.shape[2] - key_TR.shape[1]
    turned = _turn(q_THQ[..., plain:], cos_TP[:, None], sin_TP[:, None])
    shared_THR = _turn(key_TR, cos_TP, sin_TP)[:, None].expand(-1, q_THQ.shape[1], -1)
    q = torch.cat([q_THQ[..., :plain], turned], -1)
    return q, torch.cat([kv_THX[..., :plain], shared_THR], -1), kv_THX[..., plain:]


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs of neighbours turned by an angle."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def _visible(starts_T: Tensor) -> Tensor:
    """Bool [T, T]: causal, and within one document."""
    return (starts_T[:, None] == starts_T[None, :]).tril()


def route(
    x_ND: Tensor, gate_ED: Tensor, bias_E: Tensor | None, n_group: int, topk_group: int, top_k: int,
    norm_topk_prob: bool, scale: float, scoring: str = "sigmoid",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Choose experts: ids [N, K] int32 and their weights fp32.

    V3 (arXiv 2412.19437, section 2.1.2): scores are sigmoids, the bias only chooses, a group counts
    by the sum of its two best choices. V2 (arXiv 2405.04434, section 2.1.3): "softmax", a group
    counts by its best. Groups outside the best `topk_group` cannot be chosen.
    """
    sigmoid = scoring == "sigmoid"
    scores_NE = _scores(x_ND, gate_ED, sigmoid)
    choice_NE = scores_NE if bias_E is None else scores_NE + bias_E.float()
    if n_group > 1:
        grouped_NGE = choice_NE.unflatten(-1, (n_group, -1))
        best = min(2 if sigmoid else 1, grouped_NGE.shape[-1])
        group_NG = grouped_NGE.topk(best, -1).values.sum(-1)
        keep = torch.zeros_like(group_NG, dtype=torch.bool)
        keep.scatter_(1, group_NG.topk(topk_group, -1).indices, True)
        choice_NE = grouped_NGE.masked_fill(~keep[..., None], float("-inf")).flatten(1)
    ids_NK = choice_NE.topk(top_k, -1).indices
    return ids_NK.int(), _weights(scores_NE, ids_NK, norm_topk_prob, scale)


def route_to(
    x_ND: Tensor, gate_ED: Tensor, ids_NK: Tensor, norm_topk_prob: bool, scale: float,
    scoring: str = "sigmoid",
) -> Tensor:  # fmt: skip
    """The weights that `route` would give experts which were chosen elsewhere, fp32 [N, K]."""
    return _weights(_scores(x_ND, gate_ED, scoring == "sigmoid"), ids_NK, norm_topk_prob, scale)


def _scores(x_ND: Tensor, gate_ED: Tensor, sigmoid: bool) -> Tensor:
    logits_NE = F.linear(x_ND.float(), gate_ED.float())
    return torch.sigmoid(logits_NE) if sigmoid else torch.softmax(logits_NE, -1)


def _weights(scores_NE: Tensor, ids_NK: Tensor, norm_topk_prob: bool, scale: float) -> Tensor:
    weights_NK = scores_NE.gather(1, ids_NK.long())
    if norm_topk_prob:
        weights_NK = weights_NK / (weights_NK.sum(-1, keepdim=True) + 1e-20)
    return weights_NK * scale


def mlp(
    x_ND: Tensor, gate_FD: Tensor | Quantized, up_FD: Tensor | Quantized,
    down_DF: Tensor | Quantized,
) -> Tensor:  # fmt: skip
    """SwiGLU feed-forward: down( silu(gate x) * up x )."""
    return linear(F.silu(linear(x_ND, gate_FD)) * linear(x_ND, up_FD), down_DF)


def experts(
    x_ND: Tensor, ids_NK: Tensor, weights_NK: Tensor, gate_up_EJD: Tensor | Quantized,
    down_EDF: Tensor | Quantized,
) -> Tensor:  # fmt: skip
    """Weighted sum of each row's chosen experts; gate_up_EJD stacks gate over up (J = 2F).

    Rows are sorted by expert, so each expert's product runs once over its own rows.
    """
    top_k = ids_NK.shape[1]
    order = torch.argsort(ids_NK.flatten(), stable=True)
    counts = torch.bincount(ids_NK.flatten(), minlength=gate_up_EJD.shape[0]).tolist()
    sorted_x = x_ND[order // top_k]
    parts = []
    for expert, rows in enumerate(sorted_x.split(counts)):
        if rows.shape[0]:
            gate, up = linear(rows, gate_up_EJD[expert]).chunk(2, -1)
            parts.append(linear(F.silu(gate) * up, down_EDF[expert]))
    y = torch.empty(order.numel(), x_ND.shape[1], dtype=x_ND.dtype)
    y[order] = torch.cat(parts)
    return (y.view(*ids_NK.shape, -1) * weights_NK[..., None].to(y.dtype)).sum(1)


def projections(x_NI: Tensor, *weights_OI: Tensor) -> tuple[Tensor, ...]:
    """One or two matrices applied to the same rows, for training: [N, O] each."""
    return tuple(x_NI @ weight.T for weight in weights_OI)


def projections_grad(
    x_NI: Tensor, weights_OI: Sequence[Tensor], y_grads_NO: Sequence[Tensor], *, learns: bool = True
) -> tuple[Tensor, ...]:
    """Gradients of x and of each matrix, these empty unless `learns`."""
    x_grad = sum(grad @ weight for grad, weight in zip(y_grads_NO, weights_OI, strict=True))
    assert isinstance(x_grad, Tensor)
    if not learns:
        return x_grad, *(weight.new_empty(0) for weight in weights_OI)
    return x_grad, *(grad.T @ x_NI for grad in y_grads_NO)


def feed_forward(
    x_ND: Tensor, gate_ups_EJD: Sequence[Tensor], downs_EDF: Sequence[Tensor], ids_NK: Tensor,
    weights_NK: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As `experts`, for training: the result [N, D], and gate and up values of every choice
    [N * K, J], which the gradient starts from. Experts lie in one or two stacks, which count on."""
    gate_up_EJD, down_EDF = torch.cat(list(gate_ups_EJD)), torch.cat(list(downs_EDF))
    rows_CD = x_ND.repeat_interleave(ids_NK.shape[1], 0)
    pre_CJ = x_ND.new_zeros(len(rows_CD), gate_up_EJD.shape[1])
    out_CD = torch.zeros_like(rows_CD)
    for expert, mine in _choices(ids_NK, len(gate_up_EJD)):
        pre_CJ[mine] = rows_CD[mine] @ gate_up_EJD[expert].T
        gate, up = pre_CJ[mine].chunk(2, -1)
        out_CD[mine] = F.silu(gate) * up @ down_EDF[expert].T
    return (out_CD.view(*ids_NK.shape, -1) * weights_NK[..., None]).sum(1), pre_CJ


def feed_forward_grad(
    x_ND: Tensor, gate_ups_EJD: Sequence[Tensor], downs_EDF: Sequence[Tensor], ids_NK: Tensor,
    weights_NK: Tensor, pre_CJ: Tensor, y_grad_ND: Tensor, *, learns: bool = True,
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    """Gradients of x, the weights and all stacks of matrices, these empty unless `learns`."""
    gate_up_EJD, down_EDF = torch.cat(list(gate_ups_EJD)), torch.cat(list(downs_EDF))
    top_k, weights_C1 = ids_NK.shape[1], weights_NK.view(-1, 1)
    x_CD, y_grad_CD = (t.repeat_interleave(top_k, 0) for t in (x_ND, y_grad_ND))
    x_grad_CD, weights_grad_C = torch.zeros_like(x_CD), torch.zeros_like(weights_C1[:, 0])
    gate_up_grad, down_grad = torch.zeros_like(gate_up_EJD), torch.zeros_like(down_EDF)
    for expert, mine in _choices(ids_NK, len(gate_up_EJD)):
        gate, up = pre_CJ[mine].chunk(2, -1)
        sigmoid = gate.sigmoid()
        activated = gate * sigmoid
        hidden, hidden_grad = activated * up, y_grad_CD[mine] @ down_EDF[expert]
        weights_grad_C[mine] = (hidden * hidden_grad).sum(-1)
        hidden_grad = hidden_grad * weights_C1[mine]
        gate_grad = hidden_grad * up * (sigmoid + activated * (1 - sigmoid))
        pre_grad = torch.cat([gate_grad, hidden_grad * activated], -1)
        x_grad_CD[mine] = pre_grad @ gate_up_EJD[expert]
        if learns:
            gate_up_grad[expert] = pre_grad.T @ x_CD[mine]
            down_grad[expert] = (y_grad_CD[mine] * weights_C1[mine]).T @ hidden
    x_grad = x_grad_CD.view(*ids_NK.shape, -1).sum(1)
    counts = [len(stack) for stack in downs_EDF]
    gate_ups, downs = (
        list(grad.split(counts)) if learns else [grad.new_empty(0) for _ in counts]
        for grad in (gate_up_grad, down_grad)
    )
    return x_grad, weights_grad_C.view_as(weights_NK), gate_ups, downs


def cross_entropy(
    x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, *, learns: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Summed cross-entropy of `x @ weight.T` over rows whose target is not negative, a scalar, and
    its gradients of x and of the weight, this one empty unless `learns`. V: vocabulary."""
    trained_R = (targets_N >= 0).nonzero()[:, 0]
    x_RD, targets_R = x_ND[trained_R], targets_N[trained_R].long()
    logprobs_RV = (x_RD @ weight_VD.T).log_softmax(-1)
    slope_RV = logprobs_RV.exp()
    slope_RV[torch.arange(len(targets_R)), targets_R] -= 1
    x_grad = torch.zeros_like(x_ND).index_copy(0, trained_R, slope_RV @ weight_VD)
    total = -logprobs_RV.gather(1, targets_R[:, None]).sum()
    return total, x_grad, slope_RV.T @ x_RD if learns else weight_VD.new_empty(0)


def _choices(ids_NK: Tensor, experts: int) -> Iterator[tuple[int, Tensor]]:
    """The choices n * K + k of every expert that has some."""
    for expert in range(experts):
        mine = (ids_NK.flatten() == expert).nonzero()[:, 0]
        if len(mine):
            yield expert, mine


def decoder(shape: object, layers: object) -> None:
    """Whole decoders are a matter of the native tier: the loop over layers is the reference."""
    return None
