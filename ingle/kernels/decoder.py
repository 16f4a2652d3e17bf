"""Decoder layers in one native call: see native/decoder.cpp.

Called one by one from Python, the kernels of a small model's step cost more than they compute. The
loop over layers in models/causal_lm.py is the reference; results are equal to the last bit.

Legend: N rows, D model width, L layers, P pages, G page tokens, C cached values per token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import addressof, create_string_buffer
from dataclasses import astuple, dataclass
from struct import Struct
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ingle.kernels.library import LIBRARY, Weight, bound, check, stored

if TYPE_CHECKING:
    from ingle.models.batch import StepBatch

# The weights of the struct Layer in native/api.h, in its order.
_WEIGHTS = (
    "input_norm", "o", "post_norm", "q_a", "q_a_norm", "q", "kv_a", "kv_norm", "kv_b", "k", "v",
    "q_bias", "k_bias", "v_bias", "q_norm", "k_norm", "router", "experts_gate_up", "experts_down",
    "gate", "up", "down",
)  # fmt: skip
# Those that their kernels take in fp32 or bf16 only.
_PLAIN = (
    "input_norm", "post_norm", "q_a_norm", "kv_norm", "kv_b", "q_bias", "k_bias", "v_bias",
    "q_norm", "k_norm", "router",
)  # fmt: skip
_NONE = torch.empty(0)

# The structs Shape, Layer and DecoderArgs of native/api.h.
_pack_shape = Struct("15q4d").pack
_pack_layer = Struct("68q").pack
_pack_arguments = Struct("20q").pack
_decoder = bound("decoder")


@dataclass(frozen=True)
class DecoderShape:
    """Sizes all layers share, in the order of the struct Shape in native/api.h."""

    width: int
    heads: int
    key_heads: int
    query: int
    q_rank: int
    rank: int
    channels: int
    value: int
    experts: int
    expert_inner: int
    groups: int
    top_groups: int
    top_k: int
    normalise: bool
    softmax: bool
    route_scale: float
    eps: float
    latent_eps: float
    scale: float


class Decoder:
    """Consecutive layers with the addresses of their weights, taken once.

    The weights may change in place; where one is replaced, a new Decoder is needed.
    """

    def __init__(self, shape: DecoderShape, layers: Sequence[Mapping[str, Weight]]) -> None:
        self._weights = layers  # keeps the memory behind the addresses
        self._shape = create_string_buffer(_pack_shape(*astuple(shape)))
        self._layers = create_string_buffer(b"".join(map(_layer, layers)))
        self._count = len(layers)
        self._head = shape_at, layers_at = addressof(self._shape), addressof(self._layers)
        assert shape_at % 8 == 0 and layers_at % 8 == 0

    def __call__(
        self, x_ND: Tensor, batch: StepBatch, cache_LPGC: Tensor, tables: tuple[Tensor, Tensor]
    ) -> None:
        """Run the layers on x_ND (fp32) in place and write their latents into the cache, and what
        their routers chose into the batch's chosen_MNK, where it has one.

        Raises IndexError when a row leads outside the tables, its pages or the cache.
        """
        cos_TR, sin_TR = tables
        pages_SP = batch.pages_SP.contiguous()
        layers, pages, page_tokens, _ = cache_LPGC.shape
        assert layers == self._count and x_ND.is_contiguous() and x_ND.dtype is torch.float32
        assert batch.positions_N.dtype is batch.slots_N.dtype is pages_SP.dtype is torch.int32
        layer_bytes = cache_LPGC.stride(0) * cache_LPGC.element_size()
        bf16 = cache_LPGC.dtype is torch.bfloat16
        chosen = 0 if batch.chosen_MNK is None else batch.chosen_MNK.data_ptr()
        packed = _pack_arguments(
            *self._head, layers, x_ND.data_ptr(), x_ND.shape[0],
            batch.positions_N.data_ptr(), batch.slots_N.data_ptr(), batch.sequence_N.data_ptr(),
            pages_SP.data_ptr(), *pages_SP.shape, cos_TR.data_ptr(), sin_TR.data_ptr(),
            cos_TR.shape[0], cache_LPGC.data_ptr(), layer_bytes, bf16, pages, page_tokens,
            chosen,
        )  # fmt: skip
        check(_decoder(packed))


def decoder(shape: DecoderShape, layers: Sequence[Mapping[str, Weight]]) -> Decoder | None:
    """A Decoder of these layers, or None where the native kernels cannot run them all."""
    if LIBRARY is None or not all(map(_fits, layers)):
        return None
    return Decoder(shape, layers)


def _fits(layer: Mapping[str, Weight]) -> bool:
    plain = all(isinstance(layer.get(name, _NONE), Tensor) for name in _PLAIN)
    readable = all(stored(w) is not None for name, w in layer.items() if name != "bias")
    bias = layer.get("bias", _NONE)
    return plain and readable and isinstance(bias, Tensor) and bias.dtype is torch.float32


def _layer(weights: Mapping[str, Weight]) -> bytes:
    fields: list[int] = []
    for name in _WEIGHTS:
        if name in weights:
            fields += stored(weights[name]) or (0, 0, 0)
        else:
            fields += (0, 0, 0)
    bias = weights["bias"].data_ptr() if "bias" in weights else 0  # type: ignore[union-attr]
    return _pack_layer(*fields, bias, weights["gate"].shape[0])
