"""Native CPU kernels: the functions of `reference`, computed by C++ behind a plain C ABI.

fp32 rows with fp32 or bf16 weights (widened exactly, summed in fp32) run natively; every other
type, device or a call that needs a gradient falls through to `reference`. Each result is summed in
an order that does not depend on the other rows, the thread count or the block size, so a row alone
equals the same row in any batch, bit for bit. Among exactly equal scores `route` takes the lowest
expert first; torch leaves that order open.

`python -m ingle.kernels.cpu --build` compiles the library where the package was not installed with
a compiler. INGLE_CPU_TARGET names one target (native/flags.txt) instead of the best one.

Legend: as in reference.py.
"""

from __future__ import annotations

import os
import sys
from ctypes import c_longlong, c_void_p
from struct import Struct

import torch
from torch import Tensor

from ingle.kernels import reference
from ingle.kernels.build import build, runnable_targets
from ingle.kernels.cpu_training import cross_entropy as cross_entropy
from ingle.kernels.cpu_training import document_attention as document_attention
from ingle.kernels.cpu_training import document_attention_grad as document_attention_grad
from ingle.kernels.cpu_training import feed_forward as feed_forward
from ingle.kernels.cpu_training import feed_forward_grad as feed_forward_grad
from ingle.kernels.cpu_training import latent_attention as latent_attention
from ingle.kernels.cpu_training import latent_attention_grad as latent_attention_grad
from ingle.kernels.cpu_training import projections as projections
from ingle.kernels.cpu_training import projections_grad as projections_grad
from ingle.kernels.decoder import decoder as decoder
from ingle.kernels.library import LIBRARY, REASON, Weight, alike, bound, check, ints, native, stored

name = "cpu"

_F32, _BF16, _I32 = torch.float32, torch.bfloat16, torch.int32

# Fields of the argument structs in native/api.h: q is a pointer or an integer, d a double.
_linear_args = Struct("8q").pack
_norm_args = Struct("5qdq").pack
_rope_args = Struct("10q").pack
_latent_args = Struct("6qd8q").pack
_attention_args = Struct("18qdq").pack
_keys_args = Struct("8q").pack
_grouped_args = Struct("14qdq").pack
_route_args = Struct("13qd2q").pack
_mlp_args = Struct("14q").pack
_experts_args = Struct("15q").pack


_linear, _rms_norm, _rope, _write_latent = map(
    bound, ("linear", "rms_norm", "rope", "write_latent")
)
_mla_attention, _route, _mlp, _experts = map(bound, ("mla_attention", "route", "mlp", "experts"))
_write_keys, _gqa_attention = map(bound, ("write_keys", "gqa_attention"))

if LIBRARY:
    LIBRARY.ingle_set_threads(torch.get_num_threads())


def available() -> bool:
    """Whether a native library was found that runs on this processor."""
    return LIBRARY is not None


def unavailable_reason() -> str:
    """Why `available()` is False, what is lost and how to get it; "" when it is True."""
    return REASON


def set_threads(count: int) -> None:
    """Let a call use up to `count` threads; small calls use fewer. Results do not depend on it."""
    if LIBRARY:
        LIBRARY.ingle_set_threads(count)


def get_threads() -> int:
    """The most threads a call uses."""
    return LIBRARY.ingle_get_threads() if LIBRARY else 1


def probe_read(data: Tensor, sink: Tensor) -> bool:
    """Read fp32 `data` once on all threads, to time it; False where there is no library."""
    if LIBRARY:
        threads, x, out = get_threads(), data.data_ptr(), sink.data_ptr()
        LIBRARY.ingle_probe_read(threads, c_void_p(x), c_longlong(data.numel()), c_void_p(out))
    return LIBRARY is not None


def _tables(cos_TR: Tensor, sin_TR: Tensor) -> bool:
    return cos_TR.dtype is _F32 and alike(cos_TR, cos_TR, sin_TR)


def _rows(x: Tensor) -> Tensor:
    """All leading dimensions as one."""
    return x.reshape(x.shape[:-1].numel(), x.shape[-1])


def activation_dtype(weights: torch.dtype) -> torch.dtype:
    """fp32 for fp32 and bf16 weights, which these kernels widen; other weights keep their own."""
    return torch.float32 if weights == torch.bfloat16 else weights


def _row(x: Tensor) -> bool:
    """Whether activations can run natively."""
    free = not (x.requires_grad and torch.is_grad_enabled())
    return LIBRARY is not None and x.dtype is _F32 and x.is_cpu and free


def linear(x_NI: Tensor, weight_OI: Weight) -> Tensor:
    """`x @ weight.T` over the last dimension of x."""
    outs, inner = weight_OI.shape
    weight = stored(weight_OI)
    if weight is None or not _row(x_NI) or x_NI.shape[-1] != inner:
        return reference.linear(x_NI, weight_OI)
    if x_NI.dim() != 2:
        return linear(_rows(x_NI), weight_OI).view(*x_NI.shape[:-1], outs)
    x = x_NI.contiguous()
    y = x.new_empty(x.shape[0], outs)
    check(_linear(_linear_args(x.data_ptr(), x.shape[0], inner, *weight, outs, y.data_ptr())))
    return y


def rms_norm(x_ND: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last dimension (arXiv 1910.07467)."""
    width = weight_D.shape[0]
    if not native(x_ND, weight_D) or x_ND.shape[-1] != width:
        return reference.rms_norm(x_ND, weight_D, eps)
    if x_ND.dim() != 2:
        return rms_norm(_rows(x_ND), weight_D, eps).view(x_ND.shape)
    x, w = x_ND.contiguous(), weight_D
    y = torch.empty_like(x)
    _rms_norm(
        _norm_args(
            x.data_ptr(), x.shape[0], width, w.data_ptr(), w.dtype is _BF16, eps, y.data_ptr()
        )
    )
    return y


def rope_(
    x_NHQ: Tensor, cos_TR: Tensor, sin_TR: Tensor, positions_N: Tensor, half_split: bool = False
) -> None:
    """Rotate the last R of Q values of every head in place; equal to `reference` bit for bit.

    Raises IndexError for a position outside the tables.
    """
    if not (native(x_NHQ, cos_TR) and x_NHQ.is_contiguous() and _tables(cos_TR, sin_TR)):
        return reference.rope_(x_NHQ, cos_TR, sin_TR, positions_N, half_split)
    table, half = cos_TR.shape
    positions = ints(positions_N)
    tables = cos_TR.data_ptr(), sin_TR.data_ptr(), half, table
    places = positions.data_ptr(), half_split
    packed = _rope_args(x_NHQ.data_ptr(), *x_NHQ.shape, *tables, *places)
    check(_rope(packed))


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
    """Norm the latent part, rotate the key part, store both in the cache (fp32 or bf16).

    Raises IndexError for a position outside the tables or a slot outside the cache.
    """
    fits = native(kv_NC, norm_L) and native(kv_NC, cache_PGC) and _tables(cos_TR, sin_TR)
    if not fits:
        return reference.write_latent(
            kv_NC, norm_L, eps, cos_TR, sin_TR, positions_N, slots_N, cache_PGC
        )
    kv, positions, slots = kv_NC.contiguous(), ints(positions_N), ints(slots_N)
    pages, page_tokens, _ = cache_PGC.shape
    norm = norm_L.data_ptr(), norm_L.dtype is _BF16, norm_L.shape[0], eps
    tables = cos_TR.data_ptr(), sin_TR.data_ptr(), cos_TR.shape[0]
    cache = cache_PGC.data_ptr(), cache_PGC.dtype is _BF16, pages * page_tokens
    places = positions.data_ptr(), slots.data_ptr()
    check(_write_latent(_latent_args(kv.data_ptr(), *kv.shape, *norm, *tables, *places, *cache)))


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

    Online softmax over blocks of at most 64 positions, from position 0 on. Raises IndexError when
    a row leads outside the page table or the cache.
    """
    if not (native(q_NHQ, kv_b_OL) and native(q_NHQ, cache_PGC)):
        return reference.mla_attention(
            q_NHQ, kv_b_OL, cache_PGC, pages_SP, sequence_N, positions_N, scale
        )
    q, pages = q_NHQ.contiguous(), ints(pages_SP)
    sequence, positions = ints(sequence_N), ints(positions_N)
    rows, heads, width = q.shape
    outs, rank = kv_b_OL.shape
    value = outs // heads - (width - (cache_PGC.shape[2] - rank))
    y = q.new_empty(rows, heads * value)
    weight = kv_b_OL.data_ptr(), kv_b_OL.dtype is _BF16, rank, value
    cache = cache_PGC.data_ptr(), cache_PGC.dtype is _BF16, *cache_PGC.shape
    table = pages.data_ptr(), *pages.shape, sequence.data_ptr(), positions.data_ptr()
    row = q.data_ptr(), rows, heads, width
    check(_mla_attention(_attention_args(*row, *weight, *cache, *table, scale, y.data_ptr())))
    return y


def write_keys(k_NKQ: Tensor, v_NKV: Tensor, slots_N: Tensor, cache_PGC: Tensor) -> None:
    """Store rotated keys and values of each row; raises IndexError for a slot outside the cache."""
    if not native(k_NKQ, cache_PGC) or not alike(k_NKQ, v_NKV):
        return reference.write_keys(k_NKQ, v_NKV, slots_N, cache_PGC)
    k, v, slots = k_NKQ.contiguous(), v_NKV.contiguous(), ints(slots_N)
    pages, page_tokens, channels = cache_PGC.shape
    cache = cache_PGC.data_ptr(), cache_PGC.dtype is _BF16, pages * page_tokens
    row = k.data_ptr(), v.data_ptr(), k.shape[0], channels // 2
    check(_write_keys(_keys_args(*row, slots.data_ptr(), *cache)))


def gqa_attention(
    q_NHQ: Tensor, cache_PGC: Tensor, pages_SP: Tensor, sequence_N: Tensor, positions_N: Tensor,
    key_heads: int, scale: float,
) -> Tensor:  # fmt: skip
    """Grouped-query attention over paged keys and values (arXiv 2305.13245).

    Online softmax over blocks of at most 64 positions, from position 0 on. Raises IndexError when
    a row leads outside the page table or the cache.
    """
    if not native(q_NHQ, cache_PGC):
        return reference.gqa_attention(
            q_NHQ, cache_PGC, pages_SP, sequence_N, positions_N, key_heads, scale
        )
    q, pages = q_NHQ.contiguous(), ints(pages_SP)
    sequence, positions = ints(sequence_N), ints(positions_N)
    y = q.new_empty(q.shape[0], q.shape[1] * q.shape[2])
    cache = cache_PGC.data_ptr(), cache_PGC.dtype is _BF16, *cache_PGC.shape[:2]
    table = pages.data_ptr(), *pages.shape, sequence.data_ptr(), positions.data_ptr()
    row = q.data_ptr(), *q.shape, key_heads
    check(_gqa_attention(_grouped_args(*row, *cache, *table, scale, y.data_ptr())))
    return y


def route(
    x_ND: Tensor, gate_ED: Tensor, bias_E: Tensor | None, n_group: int, topk_group: int, top_k: int,
    norm_topk_prob: bool, scale: float, scoring: str = "sigmoid",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Choose experts as V3 or V2 do: ids [N, K] int32, weights fp32; see `reference.route`."""
    fits = native(x_ND, gate_ED) and x_ND.shape[-1] == gate_ED.shape[1]
    if not (fits and (bias_E is None or bias_E.is_cpu)):
        return reference.route(
            x_ND, gate_ED, bias_E, n_group, topk_group, top_k, norm_topk_prob, scale, scoring
        )
    x, bias = x_ND.contiguous(), None if bias_E is None else bias_E.float().contiguous()
    weights_NK = x.new_empty(x.shape[0], top_k)
    ids_NK = torch.empty_like(weights_NK, dtype=_I32)
    gate = gate_ED.data_ptr(), 0, gate_ED.dtype is _BF16, 0 if bias is None else bias.data_ptr()
    choice = n_group, topk_group, top_k, norm_topk_prob, scoring == "softmax", scale
    chosen = ids_NK.data_ptr(), weights_NK.data_ptr()
    packed = _route_args(x.data_ptr(), *x.shape, *gate, gate_ED.shape[0], *choice, *chosen)
    check(_route(packed))
    return ids_NK, weights_NK


def mlp(x_ND: Tensor, gate_FD: Weight, up_FD: Weight, down_DF: Weight) -> Tensor:
    """SwiGLU feed-forward: down( silu(gate x) * up x )."""
    inner, width = gate_FD.shape
    gate, up, down = stored(gate_FD), stored(up_FD), stored(down_DF)
    if gate is None or up is None or down is None or not _row(x_ND) or x_ND.shape[-1] != width:
        return reference.mlp(x_ND, gate_FD, up_FD, down_DF)
    if x_ND.dim() != 2:
        return mlp(_rows(x_ND), gate_FD, up_FD, down_DF).view(x_ND.shape)
    x = x_ND.contiguous()
    y = torch.empty_like(x)
    weights = *gate, *up, *down, inner
    check(_mlp(_mlp_args(x.data_ptr(), x.shape[0], width, *weights, y.data_ptr())))
    return y


def experts(
    x_ND: Tensor, ids_NK: Tensor, weights_NK: Tensor, gate_up_EJD: Weight, down_EDF: Weight
) -> Tensor:
    """Weighted sum of each row's chosen experts; raises IndexError for an id that is no expert."""
    gate_up, down = stored(gate_up_EJD), stored(down_EDF)
    count, width, inner = down_EDF.shape
    fits = gate_up is not None and down is not None and _row(x_ND) and x_ND.shape[-1] == width
    if not (fits and weights_NK.dtype is _F32 and alike(weights_NK, weights_NK)):
        return reference.experts(x_ND, ids_NK, weights_NK, gate_up_EJD, down_EDF)
    assert gate_up is not None and down is not None
    x, ids = x_ND.contiguous(), ints(ids_NK)
    y = torch.empty_like(x)
    choice = ids.data_ptr(), weights_NK.data_ptr(), ids.shape[1]
    packed = _experts_args(
        x.data_ptr(), x.shape[0], width, *choice, *gate_up, *down, count, inner, y.data_ptr()
    )
    check(_experts(packed))
    return y


if __name__ == "__main__":
    if sys.argv[1:] != ["--build"]:
        sys.exit("usage: python -m ingle.kernels.cpu --build")
    try:
        print(build(os.environ.get("INGLE_CPU_TARGET") or runnable_targets()[0]))
    except RuntimeError as error:
        sys.exit(str(error))
