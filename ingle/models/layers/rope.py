"""Rotary position embedding on interleaved pairs, with YaRN as DeepSeek uses it.

Legend: T positions, R rotary width (R/2 pairs).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ingle.models.config import Yarn


def inverse_frequencies(rope_dim: int, theta: float, yarn: Yarn | None) -> Tensor:
    """Angle per position of each pair, [R/2] fp32; YaRN blends interpolated and original ones.

    Pairs that turn more than beta_fast times within the original context keep their frequency,
    those below beta_slow turns are slowed by `factor`, a linear ramp lies between
    (arXiv 2309.00071, section 3.2).
    """
    frequency = 1.0 / theta ** (torch.arange(0, rope_dim, 2, dtype=torch.float32) / rope_dim)
    if yarn is None:
        return frequency

    def pair_with_turns(turns: float) -> float:
        length = yarn.original_max_position_embeddings
        return rope_dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_with_turns(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_with_turns(yarn.beta_slow)), rope_dim - 1)
    span = (high - low) or 0.001
    ramp = ((torch.arange(rope_dim // 2, dtype=torch.float32) - low) / span).clamp(0, 1)
    return frequency / yarn.factor * ramp + frequency * (1 - ramp)


def _mscale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def table_scale(yarn: Yarn | None) -> float:
    """Factor on cos and sin: 1 in every DeepSeek release, whose two mscales are equal."""
    if yarn is None:
        return 1.0
    if yarn.mscale and yarn.mscale_all_dim:
        return _mscale(yarn.factor, yarn.mscale) / _mscale(yarn.factor, yarn.mscale_all_dim)
    return _mscale(yarn.factor, 1.0)


def softmax_scale(head_dim: int, yarn: Yarn | None) -> float:
    """`head_dim^-0.5 * mscale^2`: YaRN's attention temperature, squared for query and key."""
    scale = head_dim**-0.5
    if yarn is not None and yarn.mscale_all_dim:
        scale *= _mscale(yarn.factor, yarn.mscale_all_dim) ** 2
    return scale


def rotary_tables(
    length: int, rope_dim: int, theta: float, yarn: Yarn | None
) -> tuple[Tensor, Tensor]:
    """cos and sin of every position, each [T, R/2] fp32."""
    frequency = inverse_frequencies(rope_dim, theta, yarn)
    angles_TR = torch.arange(length, dtype=torch.float32)[:, None] * frequency
    scale = table_scale(yarn)
    return angles_TR.cos() * scale, angles_TR.sin() * scale


def rotate(x: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
    """Rotate x [..., T, R] by its position, pairs (x0,x1), (x2,x3)...; differentiable."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cos_TR - odd * sin_TR, even * sin_TR + odd * cos_TR], -1)
    return turned.flatten(-2).to(x.dtype)
