"""Grouped-query attention of llama, qwen2, qwen3 and MoE-16B: `forward` over whole sequences, which
training differentiates, and `step` over the paged cache of keys and values.

Legend: B batch, T tokens, D model width, H heads, K key heads, Q head width, N rows of a step,
C = 2 K Q cached values per token, P pages, G page tokens.
"""

from __future__ import annotations

from types import ModuleType

import torch.nn.functional as F
from torch import Tensor, nn

from ingle.kernels.library import Weight
from ingle.models.batch import StepBatch
from ingle.models.config import WithGQA
from ingle.models.layers.documents import document_attention
from ingle.models.layers.linear import Linear
from ingle.models.layers.norm import RMSNorm
from ingle.models.layers.rope import rotate, softmax_scale


class GQA(nn.Module):
    """Query heads share key heads in groups (arXiv 2305.13245)."""

    def __init__(self, config: WithGQA) -> None:
        super().__init__()
        c = self.config = config
        query, key = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.q_proj = Linear(c.hidden_size, query, c.qkv_bias)
        self.k_proj = Linear(c.hidden_size, key, c.qkv_bias)
        self.v_proj = Linear(c.hidden_size, key, c.qkv_bias)
        self.o_proj = Linear(query, c.hidden_size)
        if c.qk_norm:
            self.q_norm = RMSNorm(c.head_dim, c.rms_norm_eps)
            self.k_norm = RMSNorm(c.head_dim, c.rms_norm_eps)
        self.scale = softmax_scale(c.head_dim, c.rope_scaling)

    def forward(
        self, x_BTD: Tensor, cos_TR: Tensor, sin_TR: Tensor, starts_T: Tensor | None
    ) -> Tensor:
        """starts_T: None for one document a row; B is 1 where it is given."""
        c = self.config
        q_BTHQ, k_BTKQ, v_BTKQ = (
            project(x_BTD).unflatten(-1, (-1, c.head_dim))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if c.qk_norm:
            q_BTHQ, k_BTKQ = self.q_norm(q_BTHQ), self.k_norm(k_BTKQ)
        cos, sin = cos_TR[:, None], sin_TR[:, None]  # the same for every head
        q_BTHQ, k_BTKQ = (rotate(x, cos, sin, half_split=True) for x in (q_BTHQ, k_BTKQ))
        share = c.num_attention_heads // c.num_key_value_heads
        k_BTHQ, v_BTHQ = (x.repeat_interleave(share, 2) for x in (k_BTKQ, v_BTKQ))
        if starts_T is None:
            q, k, v = (x.transpose(1, 2) for x in (q_BTHQ, k_BTHQ, v_BTHQ))
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
            return self.o_proj(out.transpose(1, 2).flatten(-2))
        out_THQ = document_attention(q_BTHQ[0], k_BTHQ[0], v_BTHQ[0], starts_T, self.scale)
        return self.o_proj(out_THQ.flatten(1)[None])

    def weights(self) -> dict[str, Weight]:
        """The weights under their names in kernels/decoder.py."""
        found: dict[str, Weight] = {"o": self.o_proj.weight}
        for name, project in (("q", self.q_proj), ("k", self.k_proj), ("v", self.v_proj)):
            found[name] = project.weight
            if project.bias is not None:
                found[f"{name}_bias"] = project.bias
        if self.config.qk_norm:
            found |= {"q_norm": self.q_norm.weight, "k_norm": self.k_norm.weight}
        return found

    def step(
        self, x_ND: Tensor, batch: StepBatch, cache_PGC: Tensor, tables: tuple[Tensor, Tensor],
        k: ModuleType,
    ) -> Tensor:  # fmt: skip
        """Write this step's keys and values into the cache, then attend over it."""
        c = self.config
        q_NHQ = self._heads(x_ND, self.q_proj, k)
        k_NKQ = self._heads(x_ND, self.k_proj, k)
        v_NKQ = self._heads(x_ND, self.v_proj, k)
        if c.qk_norm:
            q_NHQ = k.rms_norm(q_NHQ, self.q_norm.weight, c.rms_norm_eps)
            k_NKQ = k.rms_norm(k_NKQ, self.k_norm.weight, c.rms_norm_eps)
        k.rope_(q_NHQ, *tables, batch.positions_N, half_split=True)
        k.rope_(k_NKQ, *tables, batch.positions_N, half_split=True)
        k.write_keys(k_NKQ, v_NKQ, batch.slots_N, cache_PGC)
        out = k.gqa_attention(
            q_NHQ, cache_PGC, batch.pages_SP, batch.sequence_N, batch.positions_N,
            c.num_key_value_heads, self.scale,
        )  # fmt: skip
        return k.linear(out, self.o_proj.weight)

    def _heads(self, x_ND: Tensor, project: Linear, k: ModuleType) -> Tensor:
        y = k.linear(x_ND, project.weight)
        if project.bias is not None:
            y = y + project.bias
        return y.view(x_ND.shape[0], -1, self.config.head_dim)
