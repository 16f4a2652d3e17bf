"""Model -> folder, in the official layout."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ingle.models.causal_lm import CausalLM
from ingle.weights.names import FP32, unstack_experts
from ingle.weights.safetensors import save_tensors


def save_model(model: CausalLM, folder: Path, dtype: torch.dtype) -> None:
    """Write `config.json` and `model.safetensors` that DeepSeek's own names can read back."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor if name.endswith(FP32) else tensor.to(dtype)
        for name, tensor in model.state_dict().items()
    }
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight")
    save_tensors(folder / "model.safetensors", unstack_experts(state), {"format": "pt"})
    config = model.config.to_json() | {"dtype": str(dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
