"""A quantised copy of a model in training, for rollouts: what it will be when it serves.

Matrices are rounded as at load (fill.py); what stays precise there is fp32 here, as in training.
"""

from __future__ import annotations

import torch

from ingle.kernels.quantized import Kind
from ingle.models.causal_lm import CausalLM
from ingle.models.fill import Target, attach
from ingle.models.load import own_tensors, without_mtp


class QuantisedCopy:
    """`model` computes as `source`, with matrices of `kind`, did at the last `refresh`.

    It has no MTP module: rollouts do not draft. Memory stays where it is from one refresh to the
    next, so an engine over the model goes on; its prefix cache must be reset.
    """

    def __init__(self, source: CausalLM, kind: Kind) -> None:
        self._source = source
        config = source.config
        if config.mtp_layers:
            config = without_mtp(config)
        with torch.device("meta"):
            self.model = CausalLM(config, "auto")
        self._targets = [
            Target(name, tensor, torch.float32, kind, None)
            for name, tensor in own_tensors(self.model)
        ]
        attach(self._targets, self.model)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the source's weights as they are now, in place."""
        now = dict([*self._source.named_parameters(), *self._source.named_buffers()])
        if self._source.config.tie_word_embeddings:  # named as the head here, as the table there
            now["model.embed_tokens.weight"] = now["lm_head.weight"]
        for target in self._targets:
            target.put(now[target.name], None, None, 0)
