"""Tiny random checkpoints of every family, saved by transformers."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

VOCABULARY = 97
PAST_ORIGINAL = 80  # tokens: past every original context used below


def yarn(rng: random.Random) -> dict[str, Any]:
    mscale = rng.choice([1.0, 0.707])
    return {
        "type": "yarn", "rope_type": "yarn", "factor": rng.choice([2.0, 4.0, 40.0]),
        "original_max_position_embeddings": 32, "beta_fast": 32, "beta_slow": 1,
        "mscale": mscale, "mscale_all_dim": rng.choice([mscale, 1.0]),
    }  # fmt: skip


def _common(rng: random.Random) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY, "intermediate_size": 40, "num_hidden_layers": rng.choice([2, 3]),
        "max_position_embeddings": 256, "rms_norm_eps": rng.choice([1e-5, 1e-6]),
    }  # fmt: skip


def _mla(rng: random.Random) -> dict[str, Any]:
    heads, rope = rng.choice([1, 2, 4]), rng.choice([4, 8])
    return {
        "hidden_size": rng.choice([32, 48]), "num_attention_heads": heads,
        "num_key_value_heads": heads, "q_lora_rank": rng.choice([None, 16, 24]),
        "kv_lora_rank": rng.choice([16, 32]), "qk_rope_head_dim": rope, "head_dim": rope,
        "qk_nope_head_dim": rng.choice([8, 16]), "v_head_dim": rng.choice([8, 12]),
        "rope_scaling": yarn(rng) if rng.random() < 0.6 else None,
    }  # fmt: skip


def _experts(rng: random.Random, groups: int, layers: int) -> dict[str, Any]:
    return {
        "moe_intermediate_size": rng.choice([16, 24]),
        "n_routed_experts": groups * rng.choice([2, 4]), "n_shared_experts": rng.choice([1, 2]),
        "num_experts_per_tok": rng.choice([1, 2]), "n_group": groups,
        "topk_group": rng.randint(1, groups), "routed_scaling_factor": rng.choice([1.0, 2.5]),
        "first_k_dense_replace": rng.randint(0, layers - 1),
    }  # fmt: skip


def _gqa(rng: random.Random, head_dim: bool) -> dict[str, Any]:
    key_heads, share, width = rng.choice([1, 2]), rng.choice([1, 2, 3]), rng.choice([8, 16])
    heads = key_heads * share
    own = {"head_dim": rng.choice([8, 12, 20])} if head_dim else {}
    return {
        "hidden_size": heads * width, "num_attention_heads": heads,
        "num_key_value_heads": key_heads, "tie_word_embeddings": rng.random() < 0.3, **own,
    }  # fmt: skip


def deepseek_v3(rng: random.Random) -> Any:
    common = _common(rng)
    experts = _experts(rng, rng.choice([1, 2, 4]), common["num_hidden_layers"])
    return transformers.DeepseekV3Config(
        **common | _mla(rng) | experts, norm_topk_prob=rng.random() < 0.7
    )


def deepseek_v2(rng: random.Random) -> Any:
    common = _common(rng)
    groups = rng.choice([1, 2, 4])
    experts = _experts(rng, groups, common["num_hidden_layers"])
    method = "greedy" if groups == 1 else "group_limited_greedy"
    return transformers.DeepseekV2Config(**common | _mla(rng) | experts, topk_method=method)


def llama(rng: random.Random) -> Any:
    llama3 = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }  # fmt: skip
    linear = {"type": "linear", "rope_type": "linear", "factor": 4.0}
    scaling = rng.choice([None, linear, llama3])
    theta = rng.choice([1e4, 1e5, 5e5])
    return transformers.LlamaConfig(
        **_common(rng) | _gqa(rng, rng.random() < 0.5), rope_scaling=scaling, rope_theta=theta
    )


def qwen2(rng: random.Random) -> Any:
    return transformers.Qwen2Config(**_common(rng) | _gqa(rng, False), rope_theta=1e6)


def qwen3(rng: random.Random) -> Any:
    scaling = yarn(rng) if rng.random() < 0.5 else None
    if scaling:  # as R1-0528-Qwen3-8B has it: no mscale of its own
        scaling = {key: scaling[key] for key in scaling if not key.startswith("mscale")}
    return transformers.Qwen3Config(
        **_common(rng) | _gqa(rng, True), rope_scaling=scaling, rope_theta=1e6
    )


CONFIGS: dict[str, Callable[[random.Random], Any]] = {
    "deepseek_v3": deepseek_v3,
    "deepseek_v2": deepseek_v2,
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
}


def save_random(family: str, seed: int, folder: Path, std: float = 0.2) -> None:
    """Save a random tiny model: matrices normal, norms and biases uniform, nothing at zero."""
    config = CONFIGS[family](random.Random(seed))
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith("bias"):
                tensor.uniform_(-0.3, 0.3)
            elif tensor.dim() == 1 and "inv_freq" not in name:
                tensor.uniform_(0.5, 1.5)
            elif tensor.dim() > 1:
                tensor.normal_(0, std)
    model.save_pretrained(folder)
