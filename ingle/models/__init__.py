"""What a model is: one config per family in the module named by its `model_type`, one decoder."""

from __future__ import annotations

import torch

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


def build_model(config: ModelConfig, seed: int = 0, kernels: str = "auto") -> CausalLM:
    """A freshly initialised model in fp32, ready to train."""
    from ingle.models.causal_lm import initialise

    model = CausalLM(config, kernels)
    initialise(model, torch.Generator().manual_seed(seed))
    return model
