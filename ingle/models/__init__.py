"""What a model is: one config per family in the module named by its `model_type`, one decoder.

The names are resolved on first use: reading a config needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingle.models.causal_lm import CausalLM
    from ingle.models.config import ModelConfig
    from ingle.models.deepseek_v3 import DeepseekV3Config
    from ingle.models.load import load_model
    from ingle.models.local import resolve_model
    from ingle.models.read import read_config
    from ingle.models.save import save_model

__all__ = [
    "CausalLM",
    "DeepseekV3Config",
    "ModelConfig",
    "build_model",
    "load_model",
    "read_config",
    "resolve_model",
    "save_model",
]

_HOMES = {
    "CausalLM": "causal_lm",
    "DeepseekV3Config": "deepseek_v3",
    "ModelConfig": "config",
    "load_model": "load",
    "read_config": "read",
    "resolve_model": "local",
    "save_model": "save",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def build_model(config: ModelConfig, seed: int = 0, kernels: str = "auto") -> CausalLM:
    """A freshly initialised model in fp32, ready to train."""
    import torch

    from ingle.models.causal_lm import CausalLM, initialise

    model = CausalLM(config, kernels)
    initialise(model, torch.Generator().manual_seed(seed))
    return model
