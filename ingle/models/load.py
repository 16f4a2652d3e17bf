"""Folder -> model: names and shapes are checked, then every tensor is put in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from ingle.errors import WeightsError
from ingle.kernels.quantized import BLOCK, Kind
from ingle.models.causal_lm import CausalLM
from ingle.models.config import ModelConfig, WithExperts
from ingle.models.deepseek_v3 import DeepseekV3Config
from ingle.models.fill import Progress, Target, attach
from ingle.models.layers.block import MTPLayer
from ingle.models.layers.linear import Embedding, Linear
from ingle.models.place import fill_in_memory, fill_paged, page_experts
from ingle.models.read import read_config
from ingle.weights.adapter import CONFIG, open_checkpoint
from ingle.weights.cache import cache_file
from ingle.weights.checkpoint import Checkpoint
from ingle.weights.names import SCALE

_UNUSED = ("rotary_emb.inv_freq",)  # old checkpoints carry it; it follows from the config


def load_model(
    path: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    kernels: str = "auto",
    quant: Kind | None = None,
    progress: Progress | None = None,
    keep: bool = False,
    expert_bytes: int | None = None,
    importance: Mapping[str, Tensor] | None = None,
    adapter: Path | None = None,
) -> CausalLM:
    """Load a model folder for inference: `model(tokens_BT) -> logits_BTV`.

    path: a folder in Hugging Face layout, None for the shipped reasoner. dtype: of what is not
    quantised. quant: how matrices are kept; None keeps all in dtype. progress: told how many bytes
    have been read. keep: write quantised weights into the cache (weights/cache.py), or read them
    from there. expert_bytes: leave the experts in that cache on disk and keep at most this much of
    them in memory (weights/paging.py). importance: how much each input of a matrix counts when it
    is rounded to int4 (models/calibrate.py). adapter: folder of a LoRA that is added to the
    weights as they are read (weights/adapter.py). Raises ModelNotFoundError, ConfigError or
    WeightsError.
    """
    from ingle.models import resolve_model

    folder = resolve_model(path)
    config = read_config(folder)
    with open_checkpoint(folder, adapter) as checkpoint:
        mtp_prefix = f"model.layers.{config.num_hidden_layers}."
        if config.mtp_layers and not any(n.startswith(mtp_prefix) for n in checkpoint.entries):
            # a checkpoint may announce its MTP module and leave it out (transformers drops it)
            config = without_mtp(config)
        with torch.device("meta"):
            model = CausalLM(config, kernels)
        ignored = _untie_mtp(model, checkpoint)
        paged = expert_bytes is not None and isinstance(config, WithExperts)
        with torch.device("meta" if paged else "cpu"):
            targets = [
                Target(name, tensor, dtype, quant, (importance or {}).get(name))
                for name, tensor in own_tensors(model)
            ]
        _check_names(targets, checkpoint, ignored)
        kept = cache_file(checkpoint.files, f"{quant}:{dtype}{_digest(importance, adapter)}")
        if paged:
            file = fill_paged(targets, checkpoint, kept, progress)
        else:
            fill_in_memory(targets, checkpoint, kept if keep and quant else None, progress)
    attach(targets, model)
    if expert_bytes is not None and paged:
        page_experts(model, file, expert_bytes)
    return model


def _digest(importance: Mapping[str, Tensor] | None, adapter: Path | None) -> str:
    """Names the cached file of weights that were rounded for a text, or have an adapter in them."""
    if importance is None and adapter is None:
        return ""
    digest = sha256(b"" if adapter is None else (adapter / CONFIG).read_bytes())
    for name, values_I in sorted((importance or {}).items()):
        digest.update(name.encode() + values_I.numpy().tobytes())
    return f":{digest.hexdigest()[:16]}"


def own_tensors(model: CausalLM) -> list[tuple[str, Tensor]]:
    """Parameters and buffers that a checkpoint must have, shared ones once."""
    persistent = model.state_dict().keys()
    found = dict([*model.named_parameters(), *model.named_buffers()])
    if model.config.tie_word_embeddings:  # the one table has the embedding's name in the file
        found["model.embed_tokens.weight"] = found.pop("lm_head.weight")
    return [(name, tensor) for name, tensor in found.items() if name in persistent]


def _check_names(targets: list[Target], checkpoint: Checkpoint, ignored: set[str]) -> None:
    """Nothing missing, nothing misshapen, nothing left over."""
    entries = checkpoint.entries
    needed = {source.name: source.shape for target in targets for source in target.sources}
    scales = {name + SCALE for name in needed if _is_fp8(checkpoint, name)}
    if missing := sorted((needed.keys() | scales) - entries.keys()):
        raise WeightsError(f"The weights lack {missing[0]} ({len(missing)} such tensors).")
    extra = sorted(
        name for name in entries.keys() - needed.keys() - scales - ignored
        if not name.endswith(_UNUSED) and name != "lm_head.weight"
    )  # fmt: skip
    if extra:
        raise WeightsError(f"The weights hold unknown {extra[0]} ({len(extra)} such tensors).")
    for name, shape in needed.items():
        expected = {name: tuple(shape)}
        if name + SCALE in scales:
            expected[name + SCALE] = (-(-shape[0] // BLOCK), -(-shape[1] // BLOCK))
        for part, wanted in expected.items():
            if entries[part].shape != wanted:
                raise WeightsError(
                    f"{part} has shape {list(entries[part].shape)}, the config asks for "
                    f"{list(wanted)}."
                )
        if not entries[name].dtype.is_floating_point:
            raise WeightsError(f"{name} holds {entries[name].dtype}, not floating-point numbers.")


def _is_fp8(checkpoint: Checkpoint, name: str) -> bool:
    return name in checkpoint.entries and checkpoint.entries[name].dtype is torch.float8_e4m3fn


def without_mtp(config: ModelConfig) -> ModelConfig:
    """The same sizes without an MTP module, which only DeepSeek-V3's kind has."""
    assert isinstance(config, DeepseekV3Config)
    return replace(config, num_nextn_predict_layers=0)


def _untie_mtp(model: CausalLM, checkpoint: Checkpoint) -> set[str]:
    """An MTP layer shares embedding and head with the model, unless its copies in the file differ.

    Returns the names of copies that are not needed.
    """
    c, copies = model.config, set()
    for index in range(c.num_hidden_layers, c.num_hidden_layers + c.mtp_layers):
        layer = model.model.layers[index]
        assert isinstance(layer, MTPLayer)
        prefix = f"model.layers.{index}."
        for name, main in (
            ("embed_tokens.weight", "model.embed_tokens.weight"),
            ("shared_head.head.weight", "lm_head.weight"),
        ):
            if prefix + name not in checkpoint.entries:
                continue
            if _same(checkpoint, prefix + name, main):
                copies.add(prefix + name)
                continue
            with torch.device("meta"):
                if name.startswith("embed"):
                    layer.embed_tokens = Embedding(c.vocab_size, c.hidden_size)
                else:
                    layer.shared_head.head = Linear(c.hidden_size, c.vocab_size)
    return copies


def _same(checkpoint: Checkpoint, one: str, other: str) -> bool:
    a, b = checkpoint.entries[one], checkpoint.entries.get(other)
    if b is None or a.shape != b.shape or a.dtype is not b.dtype:
        return False
    return all(
        torch.equal(checkpoint.read(one, *piece), checkpoint.read(other, *piece))
        for piece in checkpoint.pieces(one)
    )
