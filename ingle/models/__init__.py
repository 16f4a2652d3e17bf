"""What a model is: one config per family in the module named by its `model_type`, one decoder."""

from __future__ import annotations

from pathlib import Path

import torch

from ingle.errors import ModelNotFoundError
from ingle.models.causal_lm import CausalLM
from ingle.models.config import ModelConfig
from ingle.models.deepseek_v3 import DeepseekV3Config
from ingle.models.load import load_model
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


def resolve_model(model: str | Path | None = None) -> Path:
    """Folder of a model: the path given, or the shipped reasoner for None."""
    if model is None:
        package = Path(__file__).resolve().parent.parent
        for folder in (package / "reasoner", package.parent / "reasoner"):
            if (folder / "config.json").is_file():
                return folder
        raise ModelNotFoundError(
            "This installation ships no reasoner; name a model folder, or train one: ingle train."
        )
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise ModelNotFoundError(
            f"No folder {str(model)!r}. Give a folder in Hugging Face layout, or no model at all "
            "for the shipped reasoner."
        )
    return folder
