"""How many bytes a step has to read from memory: what the speed of decoding is limited by."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ingle.kernels.quantized import Quantized
from ingle.models.causal_lm import CausalLM
from ingle.models.layers.moe import Experts


@dataclass(frozen=True)
class Traffic:
    """Bytes of weights that every step reads, of all routed experts, and of one cached token.

    chosen: share of the experts that one row uses. Drafting is left out.
    """

    fixed: int = 0
    experts: int = 0
    chosen: float = 0.0
    token: int = 0

    @classmethod
    def of(cls, model: object, token: int) -> Traffic:
        """Of a loaded model, whatever its weights are kept as; zero for what is no CausalLM."""
        if not isinstance(model, CausalLM):
            return cls()
        config = model.config
        layers = model.model.layers[: config.num_hidden_layers]
        read = [
            part for top in (*layers, model.model.norm, model.lm_head) for part in top.modules()
        ]
        experts = sum(_own_bytes(part) for part in read if isinstance(part, Experts))
        fixed = sum(_own_bytes(part) for part in read) - experts
        used = getattr(config, "num_experts_per_tok", 0) / getattr(config, "n_routed_experts", 1)
        return cls(fixed, experts, used, token)

    def step(self, rows: int, context: int) -> float:
        """Bytes that a step of `rows` tokens reads with `context` cached ones behind them.

        An expert is read once however many rows chose it; rows are taken to choose evenly and
        independently, so a model whose rows agree reads less.
        """
        touched = 1.0 - (1.0 - self.chosen) ** rows
        return self.fixed + self.experts * touched + self.token * context


def _own_bytes(module: nn.Module) -> int:
    tensors = [*module.parameters(recurse=False), *vars(module).values()]
    return sum(t.nbytes for t in tensors if isinstance(t, (nn.Parameter, Quantized)))
