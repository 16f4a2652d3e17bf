"""MoE-16B's family (`deepseek`), which transformers lacks, against a plain implementation of its
published remote code: token by token, expert by expert, in fp64, from the official tensor names."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ingle.models import load_model
from ingle.weights.safetensors import save_tensors
from tests.models.test_parity import paged_logits


def random_config(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    heads, width, layers = rng.choice([1, 2, 4]), rng.choice([8, 12]), rng.choice([2, 3])
    return {
        "architectures": ["DeepseekForCausalLM"], "model_type": "deepseek",
        "auto_map": {"AutoModelForCausalLM": "modeling_deepseek.DeepseekForCausalLM"},
        "vocab_size": 61, "hidden_size": heads * width, "intermediate_size": 40,
        "moe_intermediate_size": rng.choice([12, 16]), "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": heads,
        "n_routed_experts": rng.choice([4, 6]), "n_shared_experts": rng.choice([1, 2]),
        "num_experts_per_tok": rng.choice([1, 2, 3]), "norm_topk_prob": rng.random() < 0.3,
        "first_k_dense_replace": rng.randint(0, layers - 1), "moe_layer_freq": 1,
        "scoring_func": "softmax", "aux_loss_alpha": 0.001, "seq_aux": True, "hidden_act": "silu",
        "attention_bias": False, "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
        "rope_theta": 10000, "rope_scaling": None, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "transformers_version": "4.36.0", "use_cache": True,
        "bos_token_id": 0, "eos_token_id": 1, "pretraining_tp": 1, "attention_dropout": 0.0,
    }  # fmt: skip


def random_weights(c: dict[str, Any], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def matrix(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.25

    def norm() -> Tensor:
        return torch.rand(d, generator=generator) + 0.5

    d, out = c["hidden_size"], {}

    def feed_forward(name: str, inner: int) -> None:
        out[f"{name}.gate_proj.weight"] = matrix(inner, d)
        out[f"{name}.up_proj.weight"] = matrix(inner, d)
        out[f"{name}.down_proj.weight"] = matrix(d, inner)

    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for which in "qkvo":
            out[f"{layer}.self_attn.{which}_proj.weight"] = matrix(d, d)
        out[f"{layer}.input_layernorm.weight"] = norm()
        out[f"{layer}.post_attention_layernorm.weight"] = norm()
        if i < c["first_k_dense_replace"]:
            feed_forward(f"{layer}.mlp", c["intermediate_size"])
            continue
        out[f"{layer}.mlp.gate.weight"] = matrix(c["n_routed_experts"], d)
        for e in range(c["n_routed_experts"]):
            feed_forward(f"{layer}.mlp.experts.{e}", c["moe_intermediate_size"])
        shared = c["moe_intermediate_size"] * c["n_shared_experts"]
        feed_forward(f"{layer}.mlp.shared_experts", shared)
    out["model.embed_tokens.weight"] = matrix(c["vocab_size"], d)
    out["lm_head.weight"] = matrix(c["vocab_size"], d)
    out["model.norm.weight"] = norm()
    return out


def plain_logits(c: dict[str, Any], weights: dict[str, Tensor], tokens: list[int]) -> Tensor:
    """The published code's arithmetic, written out."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    heads, d = c["num_attention_heads"], c["hidden_size"]
    width = d // heads

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.pow(2).mean() + c["rms_norm_eps"]).sqrt() * w[f"{name}.weight"]

    def rope(x: Tensor, position: int) -> Tensor:
        out = x.clone()
        for i in range(width // 2):
            angle = position / c["rope_theta"] ** (2 * i / width)
            a, b = x[i], x[i + width // 2]
            out[i] = a * math.cos(angle) - b * math.sin(angle)
            out[i + width // 2] = b * math.cos(angle) + a * math.sin(angle)
        return out

    def feed_forward(x: Tensor, name: str) -> Tensor:
        gate, up = w[f"{name}.gate_proj.weight"] @ x, w[f"{name}.up_proj.weight"] @ x
        return w[f"{name}.down_proj.weight"] @ (gate / (1 + (-gate).exp()) * up)

    def mixture(x: Tensor, name: str) -> Tensor:
        scores = (w[f"{name}.gate.weight"] @ x).softmax(0)
        best = scores.topk(c["num_experts_per_tok"])
        shares = best.values
        if c["num_experts_per_tok"] > 1 and c["norm_topk_prob"]:
            shares = shares / (shares.sum() + 1e-20)
        y = feed_forward(x, f"{name}.shared_experts")
        for share, expert in zip(shares, best.indices.tolist(), strict=True):
            y = y + share * feed_forward(x, f"{name}.experts.{expert}")
        return y

    states = [w["model.embed_tokens.weight"][t] for t in tokens]
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        attn = f"{layer}.self_attn"
        normed = [norm(x, f"{layer}.input_layernorm") for x in states]
        q, k, v = (
            [(w[f"{attn}.{n}_proj.weight"] @ x).view(heads, width) for x in normed] for n in "qkv"
        )
        q = [torch.stack([rope(h, t) for h in x]) for t, x in enumerate(q)]
        k = [torch.stack([rope(h, t) for h in x]) for t, x in enumerate(k)]
        for t in range(len(tokens)):
            outs = []
            for h in range(heads):
                scores = torch.stack([q[t][h] @ k[s][h] for s in range(t + 1)]) / width**0.5
                outs.append(sum(p * v[s][h] for s, p in enumerate(scores.softmax(0))))
            states[t] = states[t] + w[f"{attn}.o_proj.weight"] @ torch.cat(outs)
        for t in range(len(tokens)):
            x = norm(states[t], f"{layer}.post_attention_layernorm")
            dense = i < c["first_k_dense_replace"]
            states[t] = states[t] + (feed_forward if dense else mixture)(x, f"{layer}.mlp")
    head = w["lm_head.weight"]
    return torch.stack([head @ norm(x, "model.norm") for x in states])


@pytest.mark.parametrize("seed", range(10))
def test_logits_equal_the_published_code(seed: int, tmp_path: Path) -> None:
    config, tokens = random_config(seed), torch.randint(0, 61, (18,)).tolist()
    weights = random_weights(config, seed)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_tensors(tmp_path / "model.safetensors", weights, {"format": "pt"})
    expected = plain_logits(config, weights, tokens).float()
    ids = torch.tensor(tokens)
    for tier in ("reference", "auto"):
        model = load_model(tmp_path, kernels=tier)
        with torch.no_grad():
            naive = model(ids[None])[0]
        paged = paged_logits(model, ids, [11, 1, 6])
        for found in (naive, paged):
            assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
