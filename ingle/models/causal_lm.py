"""A decoder of any family: one module that trains (`forward`, autograd) and serves (`step`, over a
paged cache). The config says which attention and feed-forward its layers have. Parameter names are
those of the official checkpoints, but for the experts of a layer, which are two stacked weights
here (see weights/names.py).

Legend: B batch, T tokens, D model width, V vocabulary, N rows of a step, C cached values a token,
M mixture layers (without MTP's), K experts chosen for a row.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Self

import torch
from torch import Tensor, nn

from ingle import kernels
from ingle.kernels.decoder import Decoder
from ingle.models.batch import PAGE_TOKENS, StepBatch
from ingle.models.config import ModelConfig
from ingle.models.layers.block import DecoderLayer, MTPLayer, decoder_shape
from ingle.models.layers.linear import Embedding, Linear
from ingle.models.layers.norm import RMSNorm
from ingle.models.layers.rope import rotary_tables
from ingle.weights.paging import MappedWeights


class Backbone(nn.Module):
    """Embedding, decoder layers, MTP layers after them, final norm."""

    def __init__(self, config: ModelConfig, head: Linear) -> None:
        super().__init__()
        depth = config.num_hidden_layers
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        layers: list[DecoderLayer] = [DecoderLayer(config, i) for i in range(depth)]
        layers += [
            MTPLayer(config, depth + i, self.embed_tokens, head) for i in range(config.mtp_layers)
        ]
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class CausalLM(nn.Module):
    """The model. `forward` is the reference path; `step` serves.

    `kernel_tier`: "auto", "cpu" or "reference" (ingle/kernels).
    """

    def __init__(self, config: ModelConfig, kernel_tier: str = "auto") -> None:
        super().__init__()
        self.config = config
        self.kernels: ModuleType = kernels.select(kernel_tier)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        self.model = Backbone(config, self.lm_head)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.mapped: MappedWeights | None = None  # the file of experts that stay on disk
        self._tables: tuple[Tensor, Tensor] | None = None
        self._decoders: tuple[Decoder | None, Decoder | None] | None = None

    @property
    def num_mtp(self) -> int:
        return self.config.mtp_layers

    def tables(self) -> tuple[Tensor, Tensor]:
        """cos and sin of every position of the context, each [positions, rope/2] fp32."""
        if self._tables is None:
            c = self.config
            cos, sin = rotary_tables(
                c.max_position_embeddings, c.rope_dim, c.rope_theta, c.rope_scaling
            )
            device = self.model.norm.weight.device
            self._tables = cos.to(device), sin.to(device)
        return self._tables

    # The reference path: whole sequences, differentiable.

    def forward(self, tokens_BT: Tensor, starts_T: Tensor | None = None) -> Tensor:
        """Logits [B, T, V]. starts_T makes one row a stream of packed documents: it holds the
        index of the first token of each token's document (int32)."""
        return self.logits(self.hidden(tokens_BT, starts_T))

    def hidden(
        self, tokens_BT: Tensor, starts_T: Tensor | None = None, routes_MNK: Tensor | None = None
    ) -> Tensor:
        """Hidden states [B, T, D] before the final norm (the MTP modules start from these).
        routes_MNK: experts to take for each of the B T rows, chosen elsewhere (`Router.forward`).
        """
        cos, sin = self._rows_of_tables(tokens_BT.shape[1], starts_T)
        x_BTD = self.model.embed_tokens(tokens_BT)
        routes = self._by_layer(routes_MNK)
        for layer, routes_NK in zip(self.model.layers, routes, strict=False):  # MTP's stay out
            x_BTD = layer(x_BTD, cos, sin, starts_T, routes_NK)
        return x_BTD

    def mtp_hidden(
        self, hidden_BTD: Tensor, next_BT: Tensor, starts_T: Tensor | None = None
    ) -> Tensor:
        """First MTP module over whole sequences; next_BT[t] is the token at position t + 1."""
        cos, sin = self._rows_of_tables(next_BT.shape[1], starts_T)
        mtp = self._mtp()
        return mtp(mtp.merge(hidden_BTD, next_BT), cos, sin, starts_T)

    def _rows_of_tables(self, length: int, starts_T: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rotary tables of `length` tokens; positions count from each document's start."""
        cos, sin = self.tables()
        if starts_T is None:
            return cos[:length], sin[:length]
        positions_T = torch.arange(length, device=starts_T.device) - starts_T
        return cos[positions_T], sin[positions_T]

    # Shared by both paths.

    def logits(self, hidden: Tensor) -> Tensor:
        """Final norm and head, on any shape [..., D]."""
        return self._head(hidden, *self.head())

    def mtp_logits(self, hidden: Tensor) -> Tensor:
        """Norm and head of the MTP module."""
        return self._head(hidden, *self.mtp_head())

    def head(self) -> tuple[RMSNorm, Linear]:
        """What `logits` is made of."""
        return self.model.norm, self.lm_head

    def mtp_head(self) -> tuple[RMSNorm, Linear]:
        """What `mtp_logits` is made of."""
        shared = self._mtp().shared_head
        return shared.norm, shared.head

    def _head(self, hidden: Tensor, norm: RMSNorm, head: Linear) -> Tensor:
        if hidden.requires_grad or hidden.dim() != 2:
            return head(norm(hidden))
        k = self.kernels
        return k.linear(k.rms_norm(hidden, norm.weight, norm.eps), head.weight)

    def _by_layer(self, of_mixtures: Tensor | None) -> list[Tensor | None]:
        """The part of each layer in what was stacked over mixture layers; None for dense ones."""
        parts = [] if of_mixtures is None else list(of_mixtures.unbind())
        dense: list[Tensor | None] = [None] * (self.config.num_hidden_layers - len(parts))
        return dense + parts

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
        main, _ = self._whole_decoders()
        if main is not None:
            main(x_ND, batch, cache_LPGC, tables)
            return x_ND
        for index, chosen_NK in enumerate(self._by_layer(batch.chosen_MNK)):
            layer = self._layer(index)
            x_ND = layer.step(x_ND, batch, cache_LPGC[index], tables, self.kernels, chosen_NK)
        return x_ND

    @torch.no_grad()
    def mtp_step(self, hidden_ND: Tensor, batch: StepBatch, cache_PGC: Tensor) -> Tensor:
        """Run the MTP module on rows whose tokens_N are the tokens *after* positions_N.

        Writes the module's own latents at positions_N; the result [N, D] goes to `mtp_logits`, and
        back in as hidden_ND to draft one token further.
        """
        mtp = self._mtp()
        x_ND = mtp.merge_step(hidden_ND, batch.tokens_N, self.kernels)
        _, whole = self._whole_decoders()
        if whole is not None:
            whole(x_ND, batch, cache_PGC[None], self.tables())
            return x_ND
        return mtp.step(x_ND, batch, cache_PGC, self.tables(), self.kernels)

    def _whole_decoders(self) -> tuple[Decoder | None, Decoder | None]:
        """The main layers and the MTP layer as one call each, where the kernels can do that."""
        if self._decoders is None:
            depth = self.config.num_hidden_layers
            layers = [self._layer(i) for i in range(len(self.model.layers))]
            self._decoders = (
                self._decoder(layers[:depth]),
                self._decoder(layers[depth : depth + 1]),
            )
        return self._decoders

    def _decoder(self, layers: list[DecoderLayer]) -> Decoder | None:
        if not layers or self.mapped is not None:
            return None  # experts on disk are read layer by layer, after their layer's router
        weights = [layer.weights() for layer in layers]
        return self.kernels.decoder(decoder_shape(self.config), weights)

    def _apply(self, fn: Callable, recurse: bool = True) -> Self:
        """Weights are about to move (`to`, `float`, ...): forget what depends on where they lie."""
        self._decoders = self._tables = None
        return super()._apply(fn, recurse)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As in torch; weights may be replaced, so their addresses are forgotten."""
        self._decoders = None
        return super().load_state_dict(*args, **kwargs)


@torch.no_grad()
def initialise(model: CausalLM, generator: torch.Generator) -> None:
    """DeepSeek's initialisation: normal with `initializer_range`, norms one, biases zero."""
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.fill_(1.0)
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            parameter.normal_(0.0, model.config.initializer_range, generator=generator)
