"""Rotary position embedding with the three ways that released models stretch it: YaRN as DeepSeek
uses it, linear (Coder) and Llama 3's.

Legend: T positions, R rotary width (R/2 pairs).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ingle.models.config import LinearScaling, Llama3Scaling, RopeScaling, Yarn


def inverse_frequencies(rope_dim: int, theta: float, scaling: RopeScaling | None) -> Tensor:
    """Angle per position of each pair, [R/2] fp32."""
    frequency = 1.0 / theta ** (torch.arange(0, rope_dim, 2, dtype=torch.float32) / rope_dim)
    if isinstance(scaling, Yarn):
        return _yarn(frequency, theta, scaling)
    if isinstance(scaling, LinearScaling):
        return frequency / scaling.factor
    if isinstance(scaling, Llama3Scaling):
        return _llama3(frequency, scaling)
    return frequency


def _yarn(frequency: Tensor, theta: float, yarn: Yarn) -> Tensor:
    """Pairs that turn more than beta_fast times within the original context keep their frequency,
    those below beta_slow turns are slowed by `factor`, a linear ramp lies between
    (arXiv 2309.00071, section 3.2)."""
    rope_dim = 2 * len(frequency)

    def pair_with_turns(turns: float) -> float:
        length = yarn.original_max_position_embeddings
        return rope_dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_with_turns(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_with_turns(yarn.beta_slow)), rope_dim - 1)
    span = (high - low) or 0.001
    ramp = ((torch.arange(rope_dim // 2, dtype=torch.float32) - low) / span).clamp(0, 1)
    return frequency / yarn.factor * ramp + frequency * (1 - ramp)


def _llama3(frequency: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Wavelengths above original / low are slowed, those below original / high kept; between them
    the two are mixed by where original / wavelength lies between low and high (Llama 3.1's code).
    """
    turns = scaling.original_max_position_embeddings * frequency / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return frequency / scaling.factor * (1 - keep) + frequency * keep


def _mscale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def table_scale(yarn: RopeScaling | None) -> float:
    """Factor on cos and sin: 1 in every DeepSeek release, whose two mscales are equal."""
    if not isinstance(yarn, Yarn):
        return 1.0
    if yarn.mscale and yarn.mscale_all_dim:
        return _mscale(yarn.factor, yarn.mscale) / _mscale(yarn.factor, yarn.mscale_all_dim)
    return _mscale(yarn.factor, 1.0)


def softmax_scale(head_dim: int, yarn: RopeScaling | None) -> float:
    """`head_dim^-0.5 * mscale^2`: YaRN's attention temperature, squared for query and key."""
    scale = head_dim**-0.5
    if isinstance(yarn, Yarn) and yarn.mscale_all_dim:
        scale *= _mscale(yarn.factor, yarn.mscale_all_dim) ** 2
    return scale


def rotary_tables(
    length: int, rope_dim: int, theta: float, scaling: RopeScaling | None
) -> tuple[Tensor, Tensor]:
    """cos and sin of every position, each [T, R/2] fp32."""
    frequency = inverse_frequencies(rope_dim, theta, scaling)
    angles_TR = torch.arange(length, dtype=torch.float32)[:, None] * frequency
    scale = table_scale(scaling)
    return angles_TR.cos() * scale, angles_TR.sin() * scale


def rotate(x: Tensor, cos_TR: Tensor, sin_TR: Tensor, half_split: bool = False) -> Tensor:
    """Rotate x [..., T, R] by its position; differentiable.

    Pairs are neighbours, (x0,x1), (x2,x3)..., or with half_split (x[i], x[i + R/2]).
    """
    if half_split:
        first, second = x.float().chunk(2, -1)
        turned = [first * cos_TR - second * sin_TR, first * sin_TR + second * cos_TR]
        return torch.cat(turned, -1).to(x.dtype)
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = [even * cos_TR - odd * sin_TR, even * sin_TR + odd * cos_TR]
    return torch.stack(turned, -1).flatten(-2).to(x.dtype)
