"""Folder -> model and model -> folder, in the official layout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ingle.errors import WeightsError
from ingle.models.causal_lm import CausalLM
from ingle.models.config import ModelConfig, WithExperts
from ingle.models.deepseek_v3 import DeepseekV3Config
from ingle.models.layers.block import MTPLayer
from ingle.models.read import read_config
from ingle.weights.names import stack_experts, unstack_experts
from ingle.weights.safetensors import read_tensors, save_tensors, weight_files

_FP32 = "e_score_correction_bias"  # routing stays fp32 whatever the weights are


def load_model(
    path: str | Path | None = None, dtype: torch.dtype = torch.float32, kernels: str = "auto"
) -> CausalLM:
    """Load a model folder for inference: `model(tokens_BT) -> logits_BTV`.

    path: a folder in Hugging Face layout, None for the shipped reasoner. Raises
    ModelNotFoundError, ConfigError or WeightsError.
    """
    from ingle.models import resolve_model

    folder = resolve_model(path)
    config = read_config(folder)
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        for name, tensor in read_tensors(file):
            wide = name.endswith(_FP32)
            tensors[name] = tensor.to(torch.float32 if wide else dtype, copy=True)
    if isinstance(config, WithExperts):
        tensors = stack_experts(tensors, config.n_routed_experts)
    mtp_prefix = f"model.layers.{config.num_hidden_layers}."
    if config.mtp_layers and not any(name.startswith(mtp_prefix) for name in tensors):
        # a checkpoint may announce its MTP module and leave it out (transformers drops it)
        config = _without_mtp(config)
    with torch.device("meta"):
        model = CausalLM(config, kernels)
    _untie_mtp(model, tensors)
    _assign(model, tensors)
    return model.eval().requires_grad_(False)


def save_model(model: CausalLM, folder: Path, dtype: torch.dtype) -> None:
    """Write `config.json` and `model.safetensors` that DeepSeek's own names can read back."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor if name.endswith(_FP32) else tensor.to(dtype)
        for name, tensor in model.state_dict().items()
    }
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight")
    save_tensors(folder / "model.safetensors", unstack_experts(state), {"format": "pt"})
    config = model.config.to_json() | {"dtype": str(dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _without_mtp(config: ModelConfig) -> ModelConfig:
    assert isinstance(config, DeepseekV3Config)
    return replace(config, num_nextn_predict_layers=0)


def _untie_mtp(model: CausalLM, tensors: dict[str, Tensor]) -> None:
    """An MTP layer shares embedding and head with the model, unless its copies differ."""
    c = model.config
    for index in range(c.num_hidden_layers, c.num_hidden_layers + c.mtp_layers):
        layer = model.model.layers[index]
        assert isinstance(layer, MTPLayer)
        prefix = f"model.layers.{index}."
        for name, main in (
            ("embed_tokens.weight", "model.embed_tokens.weight"),
            ("shared_head.head.weight", "lm_head.weight"),
        ):
            copy, original = tensors.pop(prefix + name, None), tensors.get(main)
            if copy is None or (original is not None and torch.equal(copy, original)):
                continue
            tensors[prefix + name] = copy
            with torch.device("meta"):
                if name.startswith("embed"):
                    layer.embed_tokens = nn.Embedding(*copy.shape)
                else:
                    layer.shared_head.head = nn.Linear(copy.shape[1], copy.shape[0], bias=False)


def _assign(model: CausalLM, tensors: dict[str, Tensor]) -> None:
    """Put every tensor in its place, checking that none is missing, left over or misshapen."""
    if model.config.tie_word_embeddings:
        tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"])
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    # names of shared parameters appear twice in a state dict; once in the file is enough
    own = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    missing = sorted(name for name in expected if name in own and name not in tensors)
    extra = sorted(name for name in tensors if name not in expected)
    if missing or extra:
        word, names = ("lack", missing) if missing else ("hold unknown", extra)
        raise WeightsError(f"The weights {word} {names[0]} ({len(names)} such tensors).")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name]:
            raise WeightsError(
                f"{name} has shape {list(tensor.shape)}, the config asks for "
                f"{list(expected[name])}."
            )
    shared = {name: tensors[_main_name(name)] for name in expected if name not in tensors}
    model.load_state_dict({**tensors, **shared}, assign=True)
    for name, buffer in model.named_buffers():
        if buffer.is_meta:  # load_E: not part of a checkpoint
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, torch.zeros(buffer.shape))


def _main_name(name: str) -> str:
    return "lm_head.weight" if name.endswith("head.weight") else "model.embed_tokens.weight"
