"""DeepSeek-V3 and R1: one module that trains (naive attention, autograd) and serves (absorbed
attention over a paged latent cache). Parameter names are those of the official checkpoints, but
for the experts of a layer, which are two stacked weights here (see weights/names.py).

Legend: B batch, T tokens, D model width, V vocabulary, N rows of a step, C cached values a token.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor, nn

from ingle import kernels
from ingle.models.batch import PAGE_TOKENS, StepBatch
from ingle.models.config import DeepseekV3Config
from ingle.models.layers.block import DecoderLayer, MTPLayer
from ingle.models.layers.norm import RMSNorm
from ingle.models.layers.rope import rotary_tables


class Backbone(nn.Module):
    """Embedding, decoder layers, MTP layers after them, final norm."""

    def __init__(self, config: DeepseekV3Config, head: nn.Linear) -> None:
        super().__init__()
        depth = config.num_hidden_layers
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers: list[DecoderLayer] = [DecoderLayer(config, i) for i in range(depth)]
        layers += [
            MTPLayer(config, depth + i, self.embed_tokens, head)
            for i in range(config.num_nextn_predict_layers)
        ]
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class DeepseekV3ForCausalLM(nn.Module):
    """The model. `forward` is the reference path; `step` serves.

    `kernel_tier`: "auto", "cpu" or "reference" (ingle/kernels).
    """

    def __init__(self, config: DeepseekV3Config, kernel_tier: str = "auto") -> None:
        super().__init__()
        self.config = config
        self.kernels: ModuleType = kernels.select(kernel_tier)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.model = Backbone(config, self.lm_head)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self._tables: tuple[Tensor, Tensor] | None = None

    @property
    def num_mtp(self) -> int:
        return self.config.num_nextn_predict_layers

    def tables(self) -> tuple[Tensor, Tensor]:
        """cos and sin of every position of the context, each [positions, rope/2] fp32."""
        if self._tables is None:
            c = self.config
            self._tables = rotary_tables(
                c.max_position_embeddings, c.qk_rope_head_dim, c.rope_theta, c.yarn
            )
        return self._tables

    # The reference path: whole sequences, differentiable.

    def forward(self, tokens_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """Logits [B, T, V]. documents_BT: equal numbers mark tokens that may see each other."""
        return self.logits(self.hidden(tokens_BT, documents_BT))

    def hidden(self, tokens_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """Hidden states [B, T, D] before the final norm (the MTP modules start from these)."""
        cos, sin = (table[: tokens_BT.shape[1]] for table in self.tables())
        mask = causal_mask(documents_BT)
        x_BTD = self.model.embed_tokens(tokens_BT)
        for layer in self.model.layers[: self.config.num_hidden_layers]:
            x_BTD = layer(x_BTD, cos, sin, mask)
        return x_BTD

    def mtp_hidden(
        self, hidden_BTD: Tensor, next_BT: Tensor, documents_BT: Tensor | None = None
    ) -> Tensor:
        """First MTP module over whole sequences; next_BT[t] is the token at position t + 1."""
        cos, sin = (table[: next_BT.shape[1]] for table in self.tables())
        mtp = self._mtp()
        return mtp(mtp.merge(hidden_BTD, next_BT), cos, sin, causal_mask(documents_BT))

    # Shared by both paths.

    def logits(self, hidden: Tensor) -> Tensor:
        """Final norm and head, on any shape [..., D]."""
        return self._head(hidden, self.model.norm, self.lm_head)

    def mtp_logits(self, hidden: Tensor) -> Tensor:
        """Norm and head of the MTP module."""
        head = self._mtp().shared_head
        return self._head(hidden, head.norm, head.head)

    def _head(self, hidden: Tensor, norm: RMSNorm, head: nn.Linear) -> Tensor:
        if hidden.requires_grad or hidden.dim() != 2:
            return head(norm(hidden))
        k = self.kernels
        return k.linear(k.rms_norm(hidden, norm.weight, norm.eps), head.weight)

    def _layer(self, index: int) -> DecoderLayer:
        layer = self.model.layers[index]
        assert isinstance(layer, DecoderLayer)
        return layer

    def _mtp(self) -> MTPLayer:
        layer = self.model.layers[self.config.num_hidden_layers]
        assert isinstance(layer, MTPLayer)
        return layer

    # The serving path: flat rows over a paged cache.

    def cache_shape(self, pages: int) -> tuple[int, int, int, int]:
        """Shape of the main model's latent cache: [layers, pages, PAGE_TOKENS, C]."""
        c = self.config
        return (c.num_hidden_layers, pages, PAGE_TOKENS, c.cache_width)

    @torch.no_grad()
    def step(self, batch: StepBatch, cache_LPGC: Tensor) -> Tensor:
        """Run the rows of one engine step; returns hidden states [N, D] before the final norm."""
        tables = self.tables()
        x_ND = self.model.embed_tokens(batch.tokens_N)
        x_ND = x_ND.to(self.kernels.activation_dtype(x_ND.dtype))
        for index in range(self.config.num_hidden_layers):
            layer = self._layer(index)
            x_ND = layer.step(x_ND, batch, cache_LPGC[index], tables, self.kernels)
        return x_ND

    @torch.no_grad()
    def mtp_step(self, hidden_ND: Tensor, batch: StepBatch, cache_PGC: Tensor) -> Tensor:
        """Run the MTP module on rows whose tokens_N are the tokens *after* positions_N.

        Writes the module's own latents at positions_N; the result [N, D] goes to `mtp_logits`, and
        back in as hidden_ND to draft one token further.
        """
        mtp = self._mtp()
        x_ND = mtp.merge_step(hidden_ND, batch.tokens_N, self.kernels)
        return mtp.step(x_ND, batch, cache_PGC, self.tables(), self.kernels)


def causal_mask(documents_BT: Tensor | None) -> Tensor | None:
    """Bool [B, 1, T, T]: causal and within one document; None when there is only one."""
    if documents_BT is None:
        return None
    same = documents_BT[:, None, :, None] == documents_BT[:, None, None, :]
    return same.tril()


@torch.no_grad()
def initialise(model: DeepseekV3ForCausalLM, generator: torch.Generator) -> None:
    """DeepSeek's initialisation: normal with `initializer_range`, norms one, router bias zero."""
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, model.config.initializer_range, generator=generator)
