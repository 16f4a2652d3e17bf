"""Multi-head latent attention, twice: `forward` (naive) decompresses keys and values and is what
training differentiates; `step` (absorbed) works on the cached latents and is what serving runs.
The first is the test of the second.

Legend: B batch, T tokens, D model width, H heads, Q = nope + rope, V value width, L kv_lora_rank,
R rope width, N rows of a step, C = L + R cached values per token, P pages, G page tokens.
"""

from __future__ import annotations

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ingle.kernels.library import Weight
from ingle.models.batch import StepBatch
from ingle.models.config import WithMLA
from ingle.models.layers.documents import document_attention
from ingle.models.layers.latent import latent_attention
from ingle.models.layers.linear import Linear, both
from ingle.models.layers.norm import RMSNorm
from ingle.models.layers.rope import rotate, softmax_scale

LATENT_EPS = 1e-6  # the official code does not pass rms_norm_eps to these two norms


class MLA(nn.Module):
    """Attention of DeepSeek-V2 and V3 (arXiv 2405.04434, section 2.1)."""

    def __init__(self, config: WithMLA) -> None:
        super().__init__()
        c = self.config = config
        query = c.num_attention_heads * c.qk_head_dim
        if c.q_lora_rank is None:
            self.q_proj = Linear(c.hidden_size, query)
        else:
            self.q_a_proj = Linear(c.hidden_size, c.q_lora_rank)
            self.q_a_layernorm = RMSNorm(c.q_lora_rank, LATENT_EPS)
            self.q_b_proj = Linear(c.q_lora_rank, query)
        self.kv_a_proj_with_mqa = Linear(c.hidden_size, c.cache_width)
        self.kv_a_layernorm = RMSNorm(c.kv_lora_rank, LATENT_EPS)
        expanded = c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim)
        self.kv_b_proj = Linear(c.kv_lora_rank, expanded)
        self.o_proj = Linear(c.num_attention_heads * c.v_head_dim, c.hidden_size)
        self.scale = softmax_scale(c.qk_head_dim, c.rope_scaling)

    def forward(
        self, x_BTD: Tensor, cos_TR: Tensor, sin_TR: Tensor, starts_T: Tensor | None
    ) -> Tensor:
        """Naive path. starts_T: None for one document a row; B is 1 where it is given."""
        c = self.config
        heads, nope = c.num_attention_heads, c.qk_nope_head_dim
        first = self.q_proj if c.q_lora_rank is None else self.q_a_proj
        q, latent_and_key = both(x_BTD, first, self.kv_a_proj_with_mqa)
        if c.q_lora_rank is not None:
            q = self.q_b_proj(self.q_a_layernorm(q))
        q_BTHQ = q.unflatten(-1, (heads, -1))
        latent, key = latent_and_key.split([c.kv_lora_rank, c.qk_rope_head_dim], -1)
        kv_BTHX = self.kv_b_proj(self.kv_a_layernorm(latent)).unflatten(-1, (heads, -1))
        if starts_T is not None and x_BTD.is_cpu:
            out_THV = latent_attention(
                q_BTHQ[0], kv_BTHX[0], key[0], cos_TR, sin_TR, starts_T, self.scale
            )
            return self.o_proj(out_THV.flatten(1)[None])

        cos, sin = cos_TR[:, None], sin_TR[:, None]  # the same for every head
        q_BTHQ = torch.cat([q_BTHQ[..., :nope], rotate(q_BTHQ[..., nope:], cos, sin)], -1)
        k_nope, v_BTHV = kv_BTHX.split([nope, c.v_head_dim], -1)
        k_rope = rotate(key, cos_TR, sin_TR)[..., None, :].expand(-1, -1, heads, -1)
        k_BTHQ = torch.cat([k_nope, k_rope], -1)
        if starts_T is None:
            q, k, v = (x.transpose(1, 2) for x in (q_BTHQ, k_BTHQ, v_BTHV))
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
            return self.o_proj(out.transpose(1, 2).flatten(-2))
        out_THV = document_attention(q_BTHQ[0], k_BTHQ[0], v_BTHV[0], starts_T, self.scale)
        return self.o_proj(out_THV.flatten(1)[None])

    def weights(self) -> dict[str, Weight]:
        """The weights under their names in kernels/decoder.py."""
        found: dict[str, Weight] = {
            "kv_a": self.kv_a_proj_with_mqa.weight, "kv_norm": self.kv_a_layernorm.weight,
            "kv_b": self.kv_b_proj.weight, "o": self.o_proj.weight,
        }  # fmt: skip
        if self.config.q_lora_rank is None:
            return found | {"q": self.q_proj.weight}
        q_a, norm, q_b = self.q_a_proj, self.q_a_layernorm, self.q_b_proj
        return found | {"q_a": q_a.weight, "q_a_norm": norm.weight, "q": q_b.weight}

    def step(
        self, x_ND: Tensor, batch: StepBatch, cache_PGC: Tensor, tables: tuple[Tensor, Tensor],
        k: ModuleType,
    ) -> Tensor:  # fmt: skip
        """Absorbed path: write this step's latents into the cache, then attend over it."""
        c = self.config
        if c.q_lora_rank is None:
            q = k.linear(x_ND, self.q_proj.weight)
        else:
            q = k.linear(x_ND, self.q_a_proj.weight)
            q = k.rms_norm(q, self.q_a_layernorm.weight, LATENT_EPS)
            q = k.linear(q, self.q_b_proj.weight)
        q_NHQ = q.view(-1, c.num_attention_heads, c.qk_head_dim)
        k.rope_(q_NHQ, *tables, batch.positions_N)
        k.write_latent(
            k.linear(x_ND, self.kv_a_proj_with_mqa.weight), self.kv_a_layernorm.weight,
            LATENT_EPS, *tables, batch.positions_N, batch.slots_N, cache_PGC,
        )  # fmt: skip
        out = k.mla_attention(
            q_NHQ, self.kv_b_proj.weight, cache_PGC, batch.pages_SP, batch.sequence_N,
            batch.positions_N, self.scale,
        )  # fmt: skip
        return k.linear(out, self.o_proj.weight)
