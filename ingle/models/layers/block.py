"""A decoder layer and the multi-token-prediction module built on it."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor, nn

from ingle.kernels.decoder import DecoderShape
from ingle.kernels.library import Weight
from ingle.models.batch import StepBatch
from ingle.models.config import ModelConfig, WithExperts, WithGQA, WithMLA
from ingle.models.layers.gqa import GQA
from ingle.models.layers.linear import Embedding, Linear
from ingle.models.layers.mla import LATENT_EPS, MLA
from ingle.models.layers.moe import MLP, MoE
from ingle.models.layers.norm import RMSNorm
from ingle.models.layers.rope import softmax_scale


class DecoderLayer(nn.Module):
    """Pre-norm attention (MLA or grouped-query) and feed-forward (experts from
    `first_k_dense_replace` on in a mixture, else dense)."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = _attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp: MLP | MoE
        if isinstance(config, WithExperts) and index >= config.first_k_dense_replace:
            self.mlp = MoE(config)
        else:
            self.mlp = MLP(config.hidden_size, config.intermediate_size)

    def forward(
        self, x_BTD: Tensor, cos: Tensor, sin: Tensor, starts_T: Tensor | None,
        routes_NK: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """routes_NK: see `Router.forward`; None in a dense layer."""
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos, sin, starts_T)
        y, mlp = self.post_attention_layernorm(x_BTD), self.mlp
        return x_BTD + (mlp(y) if routes_NK is None else mlp(y, routes_NK))

    def weights(self) -> dict[str, Weight]:
        """Every weight of the layer under its name in kernels/decoder.py."""
        found: dict[str, Weight] = {
            "input_norm": self.input_layernorm.weight,
            "post_norm": self.post_attention_layernorm.weight,
        }
        m = self.mlp
        if isinstance(m, MoE):
            found["router"] = m.gate.weight
            if m.gate.e_score_correction_bias is not None:
                found["bias"] = m.gate.e_score_correction_bias
            found["experts_gate_up"] = m.experts.gate_up_proj
            found["experts_down"] = m.experts.down_proj
        always = m.shared_experts if isinstance(m, MoE) else m
        gate, up, down = always.gate_proj, always.up_proj, always.down_proj
        found |= {"gate": gate.weight, "up": up.weight, "down": down.weight}
        return found | self.self_attn.weights()

    def step(
        self, x_ND: Tensor, batch: StepBatch, cache_PGC: Tensor, tables: tuple[Tensor, Tensor],
        k: ModuleType, chosen_NK: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The same over flat rows and the paged cache of this layer; chosen_NK: see `MoE.step`."""
        norm, eps = self.input_layernorm, self.input_layernorm.eps
        y = self.self_attn.step(k.rms_norm(x_ND, norm.weight, eps), batch, cache_PGC, tables, k)
        x_ND = x_ND + y
        y = k.rms_norm(x_ND, self.post_attention_layernorm.weight, eps)
        mlp = self.mlp
        return x_ND + (mlp.step(y, k, chosen_NK) if isinstance(mlp, MoE) else mlp.step(y, k))


def _attention(config: ModelConfig) -> MLA | GQA:
    if isinstance(config, WithMLA):
        return MLA(config)
    assert isinstance(config, WithGQA)
    return GQA(config)


def decoder_shape(c: ModelConfig) -> DecoderShape:
    """The sizes of a config's layers, for the kernel that runs them all."""
    mixed = c if isinstance(c, WithExperts) else None
    mla = c if isinstance(c, WithMLA) else None
    gqa = c if isinstance(c, WithGQA) else None
    query = mla.qk_head_dim if mla else gqa.head_dim if gqa else 0
    return DecoderShape(
        width=c.hidden_size, heads=c.num_attention_heads,
        key_heads=gqa.num_key_value_heads if gqa else 0, query=query,
        q_rank=(mla.q_lora_rank or 0) if mla else 0, rank=mla.kv_lora_rank if mla else 0,
        channels=c.cache_width, value=mla.v_head_dim if mla else query,
        experts=mixed.n_routed_experts if mixed else 0,
        expert_inner=mixed.moe_intermediate_size if mixed else 0,
        groups=mixed.n_group if mixed else 1, top_groups=mixed.topk_group if mixed else 1,
        top_k=mixed.num_experts_per_tok if mixed else 0,
        normalise=mixed is not None and mixed.norm_topk_prob,
        softmax=mixed is not None and mixed.scoring == "softmax",
        route_scale=mixed.routed_scaling_factor if mixed else 1.0, eps=c.rms_norm_eps,
        latent_eps=LATENT_EPS, scale=softmax_scale(query, c.rope_scaling),
    )  # fmt: skip


class SharedHead(nn.Module):
    """Norm and head of an MTP module; the head is the main model's unless a checkpoint differs."""

    def __init__(self, config: ModelConfig, head: Linear) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = head


class MTPLayer(DecoderLayer):
    """Multi-token prediction: `block(eh_proj([enorm(Emb(t_{i+1})); hnorm(h_i)]))` predicts t_{i+2}.

    h_i is the main model's hidden state before its final norm (arXiv 2412.19437, section 2.2).
    In a checkpoint it is the layer after the last one.
    """

    def __init__(self, config: ModelConfig, index: int, embed: Embedding, head: Linear) -> None:
        super().__init__(config, index)
        self.embed_tokens = embed
        self.enorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = Linear(2 * config.hidden_size, config.hidden_size)
        self.shared_head = SharedHead(config, head)

    def merge(self, hidden_BTD: Tensor, next_BT: Tensor) -> Tensor:
        """Input of the block: hidden states beside the embeddings of the tokens after them."""
        embedded = self.enorm(self.embed_tokens(next_BT))
        return self.eh_proj(torch.cat([embedded, self.hnorm(hidden_BTD)], -1))

    def merge_step(self, hidden_ND: Tensor, next_N: Tensor, k: ModuleType) -> Tensor:
        embedded = self.embed_tokens(next_N).to(hidden_ND.dtype)
        embedded = k.rms_norm(embedded, self.enorm.weight, self.enorm.eps)
        hidden = k.rms_norm(hidden_ND, self.hnorm.weight, self.hnorm.eps)
        return k.linear(torch.cat([embedded, hidden], -1), self.eh_proj.weight)
