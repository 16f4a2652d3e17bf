"""Tensors -> `Quantized` weights, while a model is loaded (formats: kernels/quantized.py).

Legend: E experts, O outputs, I inputs, S groups of GROUP inputs.
"""

from __future__ import annotations

from struct import Struct

import torch
import torch.nn.functional as F
from torch import Tensor

from ingle.kernels.library import LIBRARY, bound, check
from ingle.kernels.quantized import BLOCK, GROUP, Kind, Quantized

_FP8_LARGEST = 448.0
_TRIES = 14  # scales tried for a group of int4; as in native/quantize.cpp
_CODES = {"int8": 2, "int4": 3}
_pack = Struct("8q").pack
_quantize = bound("quantize")


def quantise(weight: Tensor, kind: Kind, importance_I: Tensor | None = None) -> Quantized:
    """Round a weight [O, I] or a stack [E, O, I] of fp32 or bf16.

    int8 takes each group's largest value as 127. int4 tries scales around the one that makes the
    largest value -8 and keeps the one with the least squared error, each input weighted by
    `importance_I` (its mean square over a calibration text) where that is given.
    """
    if kind == "fp8":
        return _fp8(weight)
    native = LIBRARY is not None and weight.dtype in (torch.float32, torch.bfloat16)
    return (_native if native else quantise_plain)(weight.contiguous(), kind, importance_I)


def _native(weight: Tensor, kind: Kind, importance_I: Tensor | None) -> Quantized:
    *front, inner = weight.shape
    groups = -(-inner // GROUP)
    width, dtype = (GROUP, torch.int8) if kind == "int8" else (GROUP // 2, torch.uint8)
    data = torch.empty(*front, groups * width, dtype=dtype)
    scale = torch.empty(*front, groups, dtype=torch.bfloat16)
    weighted = None if importance_I is None else importance_I.float().contiguous()
    outs = weight.numel() // inner if inner else 0
    where = 0 if weighted is None else weighted.data_ptr()
    source = weight.data_ptr(), weight.dtype is torch.bfloat16, outs, inner, _CODES[kind]
    check(_quantize(_pack(*source, where, data.data_ptr(), scale.data_ptr())))
    return Quantized(kind, data, scale, inner)


def quantise_plain(weight: Tensor, kind: Kind, importance_I: Tensor | None = None) -> Quantized:
    """int8 and int4 in plain torch: the reference of native/quantize.cpp."""
    inner = weight.shape[-1]
    padded = F.pad(weight.float(), (0, -inner % GROUP)).unflatten(-1, (-1, GROUP))
    if kind == "int8":
        scale = _bf16_up(padded.abs().amax(-1) / 127.0)
        values = _round(padded, scale, -127, 127)
        return Quantized(kind, values.to(torch.int8).flatten(-2), scale.bfloat16(), inner)
    weighted = torch.ones(inner) if importance_I is None else importance_I.float()
    weighted_SG = F.pad(weighted, (0, -inner % GROUP)).unflatten(-1, (-1, GROUP))
    place = padded.abs().argmax(-1, keepdim=True)
    extreme = padded.gather(-1, place)[..., 0]
    scale, least = torch.zeros_like(extreme), torch.full_like(extreme, torch.inf)
    for attempt in range(_TRIES):
        factor = (1.04 - 0.04 * (attempt // 2)) * (-1 if attempt % 2 else 1)
        tried = (extreme / -8.0 * factor).bfloat16().float()
        miss = padded - _round(padded, tried, -8, 7) * tried[..., None]
        error = (miss.square() * weighted_SG).sum(-1)
        scale = torch.where(error < least, tried, scale)
        least = torch.minimum(error, least)
    low, high = (_round(padded, scale, -8, 7) + 8).to(torch.uint8).chunk(2, -1)
    return Quantized(kind, (low | high << 4).flatten(-2), scale.bfloat16(), inner)


def _fp8(weight: Tensor) -> Quantized:
    """e4m3 with the scale of a square its largest value / 448, as DeepSeek-V3's weights."""
    outs, inner = weight.shape[-2:]
    padded = F.pad(weight.float(), (0, -inner % BLOCK, 0, -outs % BLOCK))
    squares = padded.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK))
    scale = squares.abs().amax((-3, -1)) / _FP8_LARGEST
    wide = scale.repeat_interleave(BLOCK, -2)[..., :outs, :]
    wide = wide.repeat_interleave(BLOCK, -1)[..., :inner]
    values = torch.where(wide > 0, weight.float() / wide, 0.0)
    return Quantized("fp8", values.to(torch.float8_e4m3fn), scale, inner)


def _round(padded: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    inverse = torch.where(scale != 0, 1.0 / scale, 0.0)
    return torch.round(padded * inverse[..., None]).clamp(low, high)


def _bf16_up(x: Tensor) -> Tensor:
    """The next bf16 not below a non-negative x, so that nothing is clipped."""
    bits = x.view(torch.int32)
    return ((bits + 0xFFFF) & ~0xFFFF).view(torch.float32)
