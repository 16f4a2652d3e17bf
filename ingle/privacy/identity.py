"""Which architecture the tensors belong to, and what a person should know about the name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ingle.models.config import ModelConfig, WithExperts, WithGQA, WithMLA

Shape = tuple[int, ...]

_UNUSED = "rotary_emb.inv_freq"  # old checkpoints carry it; it follows from the config
SCALE = "_scale_inv"
_R1_BILLIONS = 671


def name_of(folder: Path) -> str:
    """The repository id of a snapshot in a hub cache, else the name of the folder."""
    home = folder.resolve()
    repository = home.parent.parent.name
    if home.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return home.name


def recognise(names: Mapping[str, object], claimed: str) -> str:
    """The model_type whose names these tensors have, "" where none fits.

    A model without experts looks the same in deepseek_v2 and deepseek_v3: then it is the claimed.
    """

    def has(part: str) -> bool:
        return any(part in name for name in names)

    if has(".attn.wkv."):
        return "deepseek_v4" if has("hc_head_") else "deepseek_v41"
    if has(".self_attn.kv_a_proj_with_mqa."):
        if has(".indexer."):
            return "deepseek_v32"
        if not has(".mlp.gate.") and claimed == "deepseek_v2":
            return claimed
        routed = has(".mlp.gate.") and not has("e_score_correction_bias")
        return "deepseek_v2" if routed else "deepseek_v3"
    if not has(".self_attn.q_proj.") or not has(".mlp."):
        return ""
    if has(".mlp.experts."):
        return "deepseek" if has(".mlp.shared_experts.") else ""
    if has(".self_attn.q_norm."):
        return "qwen3"
    return "qwen2" if has(".self_attn.q_proj.bias") else "llama"


def expected_tensors(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    """Name and shape of every tensor of a checkpoint in the official layout, MTP modules last."""
    d = config.hidden_size
    yield "model.embed_tokens.weight", (config.vocab_size, d)
    yield "model.norm.weight", (d,)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", (config.vocab_size, d)
    for layer in range(config.num_hidden_layers + config.mtp_layers):
        prefix = f"model.layers.{layer}."
        for name, shape in (*_attention(config), *_feed_forward(config, layer)):
            yield prefix + name, shape
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}{norm}.weight", (d,)
        if layer >= config.num_hidden_layers:
            yield prefix + "eh_proj.weight", (d, 2 * d)
            for norm in ("enorm", "hnorm", "shared_head.norm"):
                yield f"{prefix}{norm}.weight", (d,)


def compare_tensors(config: ModelConfig, found: Mapping[str, Shape]) -> dict[str, list[str]]:
    """Names that are missing, unexpected or misshapen, by these three words."""
    d, depth = config.hidden_size, config.num_hidden_layers
    mtp = tuple(f"model.layers.{depth + i}." for i in range(config.mtp_layers))
    announced = any(name.startswith(mtp) for name in found) if mtp else False
    wanted = {
        name: shape for name, shape in expected_tensors(config)
        if announced or not name.startswith(mtp) or not mtp
    }  # fmt: skip
    optional: dict[str, Shape] = {"lm_head.weight": (config.vocab_size, d)}
    for prefix in mtp:  # copies of the model's own tables
        optional[prefix + "embed_tokens.weight"] = (config.vocab_size, d)
        optional[prefix + "shared_head.head.weight"] = (config.vocab_size, d)
    out: dict[str, list[str]] = {"missing": [], "unexpected": [], "misshapen": []}
    for name, shape in found.items():
        weight = name.removesuffix(SCALE)
        due = wanted.get(weight) or optional.get(weight)
        if due is None:
            if not name.endswith(_UNUSED):
                out["unexpected"].append(name)
        elif shape != (due if name == weight else tuple(-(-size // 128) for size in due)):
            out["misshapen"].append(name)
    out["missing"] = sorted(wanted.keys() - found.keys())
    return out


def describe(name: str, recognised: str, parameters: int) -> str:
    """One sentence on what the model is, for people who heard that "R1 runs on a laptop"."""
    size = _short(parameters)
    called_r1 = bool(re.search(r"(?<![a-z0-9])r1(?![a-z0-9])", name.lower()))
    base = {"qwen2": "Qwen 2.5", "qwen3": "Qwen 3", "llama": "Llama 3"}.get(recognised)
    if base and (called_r1 or "distill" in name.lower()):
        return (
            f"A distill of {size} parameters: {base} taught with R1's answers. It is not R1 "
            f"itself, which is a deepseek_v3 model of {_R1_BILLIONS} billion."
        )
    if called_r1 and recognised == "deepseek_v3":
        if parameters >= _R1_BILLIONS * 1e9:
            return f"R1 by its name and architecture: a deepseek_v3 model of {size} parameters."
        return (
            f"Called R1, but of {size} parameters; R1 itself is a deepseek_v3 model of "
            f"{_R1_BILLIONS} billion."
        )
    if not recognised:
        return "The tensors belong to no architecture that the audit knows."
    return f"A model of the {recognised} architecture with {size} parameters."


def _attention(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    d, heads = config.hidden_size, config.num_attention_heads
    if isinstance(config, WithMLA):
        query = heads * config.qk_head_dim
        if config.q_lora_rank is None:
            yield "self_attn.q_proj.weight", (query, d)
        else:
            yield "self_attn.q_a_proj.weight", (config.q_lora_rank, d)
            yield "self_attn.q_a_layernorm.weight", (config.q_lora_rank,)
            yield "self_attn.q_b_proj.weight", (query, config.q_lora_rank)
        expanded = heads * (config.qk_nope_head_dim + config.v_head_dim)
        yield "self_attn.kv_a_proj_with_mqa.weight", (config.cache_width, d)
        yield "self_attn.kv_a_layernorm.weight", (config.kv_lora_rank,)
        yield "self_attn.kv_b_proj.weight", (expanded, config.kv_lora_rank)
        yield "self_attn.o_proj.weight", (d, heads * config.v_head_dim)
    elif isinstance(config, WithGQA):
        query, key = heads * config.head_dim, config.num_key_value_heads * config.head_dim
        for name, rows in (("q", query), ("k", key), ("v", key)):
            yield f"self_attn.{name}_proj.weight", (rows, d)
            if config.qkv_bias:
                yield f"self_attn.{name}_proj.bias", (rows,)
        yield "self_attn.o_proj.weight", (d, query)
        if config.qk_norm:
            yield "self_attn.q_norm.weight", (config.head_dim,)
            yield "self_attn.k_norm.weight", (config.head_dim,)


def _feed_forward(config: ModelConfig, layer: int) -> Iterator[tuple[str, Shape]]:
    d = config.hidden_size
    if not isinstance(config, WithExperts) or layer < config.first_k_dense_replace:
        yield from _mlp("mlp.", d, config.intermediate_size)
        return
    yield "mlp.gate.weight", (config.n_routed_experts, d)
    if config.router_bias:
        yield "mlp.gate.e_score_correction_bias", (config.n_routed_experts,)
    for expert in range(config.n_routed_experts):
        yield from _mlp(f"mlp.experts.{expert}.", d, config.moe_intermediate_size)
    if config.n_shared_experts:
        shared = config.n_shared_experts * config.moe_intermediate_size
        yield from _mlp("mlp.shared_experts.", d, shared)


def _mlp(prefix: str, width: int, inner: int) -> Iterator[tuple[str, Shape]]:
    yield prefix + "gate_proj.weight", (inner, width)
    yield prefix + "up_proj.weight", (inner, width)
    yield prefix + "down_proj.weight", (width, inner)


def _short(parameters: int) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if parameters >= size:
            return f"{parameters / size:.3g} {word}"
    return f"{parameters:,}"
