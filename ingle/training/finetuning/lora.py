"""Low-rank adapters on a frozen model (LoRA, arXiv 2106.09685): y = W x + (alpha / rank) B A x.

A starts as in PEFT (uniform, Kaiming with a = sqrt 5), B at zero, so that a new adapter changes
nothing to the last bit. Adapters are fp32 whatever the base is kept in. In a mixture each expert
has pairs of its own for its gate, up and down matrix, computed as grouped products like the experts
themselves. Routers, norms, embedding, head and MTP modules stay as they are.

Legend: N rows, D model width, E experts, K chosen experts, M = N K sorted rows, F expert width,
R rank, I inputs, O outputs.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ingle.errors import ConfigError, WeightsError
from ingle.models.causal_lm import CausalLM
from ingle.models.layers.block import DecoderLayer
from ingle.models.layers.linear import Linear
from ingle.models.layers.moe import Experts, MoE, grouped_linear
from ingle.weights.adapter import CONFIG, PREFIX, WEIGHTS, A, B, read_adapter
from ingle.weights.safetensors import save_tensors

TARGETS = ("attention", "mlp", "experts")
_GROUPED_ROWS = 4  # grouped products want rows of 16 bytes


@dataclass(frozen=True)
class LoraConfig:
    """rank R; alpha: the scale is alpha / rank; targets: which matrices, some of TARGETS ("mlp" is
    dense layers and shared experts, "experts" the routed ones)."""

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = TARGETS

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise ConfigError("A LoRA needs a rank of at least 1 and an alpha above 0.")
        if not self.targets or not set(self.targets) <= set(TARGETS):
            raise ConfigError(f"LoRA targets are among {', '.join(TARGETS)}.")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class LowRank(nn.Module):
    """scale * B A x, in fp32. groups: None for one matrix, E for one of each expert."""

    def __init__(
        self, inner: int, outs: int, config: LoraConfig, groups: int | None = None
    ) -> None:
        super().__init__()
        front = () if groups is None else (groups,)
        self.scale = config.scale
        self.lora_A = nn.Parameter(torch.empty(*front, config.rank, inner))
        self.lora_B = nn.Parameter(torch.zeros(*front, outs, config.rank))

    def start(self, generator: torch.Generator) -> None:
        """A uniform in +-1/sqrt(I), B zero."""
        bound = 1 / math.sqrt(self.lora_A.shape[-1])
        nn.init.uniform_(self.lora_A, -bound, bound, generator=generator)

    def forward(self, x: Tensor, ends_E: Tensor | None = None) -> Tensor:
        """x [..., I] -> [..., O]. ends_E: where each expert's rows end, for sorted rows [M, I]."""
        x = x.to(self.lora_A.dtype)
        if ends_E is None:
            return self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)
        return self.scale * grouped_linear(
            grouped_linear(x, self.lora_A, ends_E), self.lora_B, ends_E
        )


class LoraLinear(Linear):
    """A matrix of a model with an adapter beside it; takes over the parameters of `base`."""

    def __init__(self, base: Linear, config: LoraConfig) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = base.weight, base.bias
        outs, inner = base.weight.shape
        self.lora = LowRank(inner, outs, config)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y + self.lora(x).to(y.dtype)


class LoraExperts(Experts):
    """The routed experts of a layer, each matrix of each with an adapter of its own."""

    def __init__(self, base: Experts, config: LoraConfig) -> None:
        nn.Module.__init__(self)
        self.gate_up_proj, self.down_proj = base.gate_up_proj, base.down_proj
        experts, width, inner = base.down_proj.shape
        self.gate_lora = LowRank(width, inner, config, experts)
        self.up_lora = LowRank(width, inner, config, experts)
        self.down_lora = LowRank(inner, width, config, experts)

    def gate_and_up(self, rows_MD: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = super().gate_and_up(rows_MD, ends_E)
        gate = gate + self.gate_lora(rows_MD, ends_E).to(gate.dtype)
        return gate, up + self.up_lora(rows_MD, ends_E).to(up.dtype)

    def down(self, inner_MF: Tensor, ends_E: Tensor) -> Tensor:
        out = super().down(inner_MF, ends_E)
        return out + self.down_lora(inner_MF, ends_E).to(out.dtype)


def add_adapters(model: CausalLM, config: LoraConfig, seed: int = 0) -> None:
    """Freeze a model and put fresh adapters on its targets; ConfigError where it has none."""
    model.requires_grad_(False)
    for layer in model.model.layers[: model.config.num_hidden_layers]:
        assert isinstance(layer, DecoderLayer)
        if "attention" in config.targets:
            _adapt_linears(layer.self_attn, config)
        if "mlp" in config.targets:
            _adapt_linears(layer.mlp, config)
        if "experts" in config.targets and isinstance(layer.mlp, MoE):
            if config.rank % _GROUPED_ROWS:
                raise ConfigError(f"On experts the rank must be a multiple of {_GROUPED_ROWS}.")
            layer.mlp.experts = LoraExperts(layer.mlp.experts, config)
    generator = torch.Generator().manual_seed(seed)
    adapters = [module for module in model.modules() if isinstance(module, LowRank)]
    if not adapters:
        raise ConfigError(f"The model has no matrices of the kind {', '.join(config.targets)}.")
    for adapter in adapters:
        adapter.start(generator)


def _adapt_linears(part: nn.Module, config: LoraConfig) -> None:
    for name, module in list(part.named_modules()):
        if isinstance(module, Linear):
            owner, _, leaf = name.rpartition(".")
            setattr(part.get_submodule(owner), leaf, LoraLinear(module, config))


def trained_parameters(model: nn.Module) -> int:
    """How many numbers of a model are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def save_adapter(model: CausalLM, config: LoraConfig, folder: Path) -> None:
    """Write the adapters as PEFT does, each expert's apart, as the base checkpoint has them."""
    pairs = {name.removesuffix(".weight"): pair for name, pair in _pairs(model).items()}
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in pairs.items():
        tensors[PREFIX + name + A], tensors[PREFIX + name + B] = down, up
    save_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    content = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None,
        "r": config.rank, "lora_alpha": config.alpha, "lora_dropout": 0.0, "bias": "none",
        "fan_in_fan_out": False, "inference_mode": True, "target_modules": _suffixes(pairs),
    }  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def load_adapter(model: CausalLM, folder: Path) -> None:
    """Read saved adapters into a model that has them, to go on training."""
    saved, mine = read_adapter(folder).pairs, _pairs(model)
    shapes = [
        {name: (down.shape, up.shape) for name, (down, up) in pairs.items()}
        for pairs in (saved, mine)
    ]
    if shapes[0] != shapes[1]:
        raise WeightsError(f"{folder.name} holds an adapter of other matrices.")
    with torch.no_grad():
        for name, halves in mine.items():
            for half, value in zip(halves, saved[name], strict=True):
                half.copy_(value)


def _pairs(model: CausalLM) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B by the official name of their matrix; views of the parameters."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            found[f"{name}.weight"] = module.lora.lora_A, module.lora.lora_B
        elif isinstance(module, LoraExperts):
            for which in ("gate", "up", "down"):
                adapter: LowRank = getattr(module, f"{which}_lora")
                for e, pair in enumerate(zip(adapter.lora_A, adapter.lora_B, strict=True)):
                    found[f"{name}.{e}.{which}_proj.weight"] = pair
    return found


def _suffixes(names: dict[str, tuple[Tensor, Tensor]]) -> list[str]:
    """The ends of names by which PEFT finds the same matrices, and no others."""
    return sorted({".".join(name.split(".")[3:]) for name in names})
