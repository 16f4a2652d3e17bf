"""Weights in fewer bits, as the kernels read them.

    int8  values -127..127, one bf16 scale for GROUP inputs of an output
    int4  values -8..7 stored as 0..15, two a byte: of GROUP inputs the first half in the low four
          bits, the second half in the high ones; scales as int8
    fp8   e4m3, one fp32 scale for a square of 128 x 128 weights, as DeepSeek-V3's checkpoints

Rows that meet int8 and int4 weights are rounded to int8 first, in the same groups with a scale
each (as llama.cpp does), so that products are exact integers; fp8 weights are widened instead.

Legend: N rows, O outputs, I inputs, E experts, S groups of GROUP inputs. A stack of expert
matrices has E in front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 64
BLOCK = 128
Kind = Literal["int8", "int4", "fp8"]


@dataclass(frozen=True, eq=False)
class Quantized:
    """A matrix [O, I] or a stack of them [E, O, I].

    data: int8 [.., O, S * GROUP], int4 uint8 [.., O, S * GROUP / 2], fp8 [.., O, I].
    scale: bf16 [.., O, S], fp8's fp32 [.., ceil(O / 128), ceil(I / 128)].
    """

    kind: Kind
    data: Tensor
    scale: Tensor
    inner: int  # I: the last group may be longer than the matrix

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.data.shape[:-1], self.inner))

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales."""
        return int(self.data.nbytes + self.scale.nbytes)

    def __getitem__(self, expert: int) -> Quantized:
        """One matrix of a stack."""
        return Quantized(self.kind, self.data[expert], self.scale[expert], self.inner)

    def dequantise(self) -> Tensor:
        """The weights it stands for, fp32 [.., O, I]."""
        if self.kind == "fp8":
            return dequantise_blocks(self.data, self.scale)
        data = self.data
        if self.kind == "int4":
            halves = data.unflatten(-1, (-1, GROUP // 2))
            data = torch.cat([halves & 15, halves >> 4], -1).flatten(-2).to(torch.int8) - 8
        grouped = data.unflatten(-1, (-1, GROUP)).float() * self.scale.float()[..., None]
        return grouped.flatten(-2)[..., : self.inner].contiguous()


def linear(x_NI: Tensor, weight: Quantized) -> Tensor:
    """`x @ weight.T` as the native kernels define it, in plain torch."""
    x = x_NI.float() if weight.kind == "fp8" else rounded(x_NI.float())
    return F.linear(x, weight.dequantise()).to(x_NI.dtype)


def rounded(x_NI: Tensor) -> Tensor:
    """Rows after rounding to int8 in groups, as fp32."""
    inner = x_NI.shape[-1]
    grouped = F.pad(x_NI, (0, -inner % GROUP)).unflatten(-1, (-1, GROUP))
    largest = grouped.abs().amax(-1, keepdim=True)
    inverse = torch.where(largest > 0, 127.0 / largest, 0.0)
    values = torch.round(grouped * inverse) * (largest / 127.0)
    return values.flatten(-2)[..., :inner]


def dequantise_blocks(data: Tensor, scale: Tensor) -> Tensor:
    """`fp8 * scale` for squares of 128 x 128, the last ones cut (DeepSeek-V3's own rule), fp32."""
    outs, inner = data.shape[-2:]
    wide = scale.repeat_interleave(BLOCK, -2)[..., :outs, :]
    wide = wide.repeat_interleave(BLOCK, -1)[..., :inner]
    return data.float() * wide
