"""Same function as transformers: tiny random checkpoints saved by it, loaded by us."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from ingle.models import load_model
from ingle.models.batch import StepBatch

transformers = pytest.importorskip("transformers")


def random_checkpoint(seed: int, folder: Path) -> int:
    """Save a random tiny deepseek_v3; returns a sequence length past its original context."""
    rng = random.Random(seed)
    groups = rng.choice([1, 2, 4])
    per_group = rng.choice([2, 4])
    yarn = {
        "type": "yarn",
        "factor": rng.choice([2.0, 4.0, 40.0]),
        "original_max_position_embeddings": 32,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": rng.choice([1.0, 0.707]),
    }
    layers = rng.choice([2, 3])
    config = transformers.DeepseekV3Config(
        vocab_size=97,
        hidden_size=rng.choice([32, 48]),
        intermediate_size=40,
        moe_intermediate_size=rng.choice([16, 24]),
        num_hidden_layers=layers,
        num_attention_heads=(heads := rng.choice([1, 2, 4])),
        num_key_value_heads=heads,
        n_routed_experts=groups * per_group,
        n_shared_experts=rng.choice([1, 2]),
        num_experts_per_tok=rng.choice([1, 2]),
        n_group=groups,
        topk_group=rng.randint(1, groups),
        norm_topk_prob=rng.random() < 0.7,
        routed_scaling_factor=rng.choice([1.0, 2.5]),
        q_lora_rank=rng.choice([None, 16, 24]),
        kv_lora_rank=rng.choice([16, 32]),
        qk_rope_head_dim=(rope := rng.choice([4, 8])),
        head_dim=rope,
        qk_nope_head_dim=rng.choice([8, 16]),
        v_head_dim=rng.choice([8, 12]),
        first_k_dense_replace=rng.randint(0, layers - 1),
        max_position_embeddings=256,
        rope_scaling=yarn if rng.random() < 0.6 else None,
        rms_norm_eps=rng.choice([1e-5, 1e-6]),
    )
    torch.manual_seed(seed)
    model = transformers.DeepseekV3ForCausalLM(config)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith("e_score_correction_bias"):
                tensor.uniform_(-0.3, 0.3)
            elif tensor.dim() == 1 and "inv_freq" not in name:
                tensor.uniform_(0.5, 1.5)
            elif tensor.dim() > 1:
                tensor.normal_(0, 0.2)
    model.save_pretrained(folder)
    return 80


def paged_logits(model: torch.nn.Module, tokens: torch.Tensor, chunks: list[int]) -> torch.Tensor:
    """Absorbed-path logits of one sequence fed in chunks over shuffled pages."""
    cache = torch.zeros(model.cache_shape(4))
    pages, start, out = [3, 1, 0, 2], 0, []
    for size in chunks:
        ids = tokens[start : start + size].tolist()
        hidden = model.step(StepBatch.build([(ids, start, pages)]), cache)
        out.append(model.logits(hidden))
        start += size
    return torch.cat(out)


@pytest.mark.parametrize("seed", range(24))
def test_logits_equal_transformers_on_both_paths(seed: int, tmp_path: Path) -> None:
    length = random_checkpoint(seed, tmp_path)
    tokens = torch.randint(0, 97, (2, length), generator=torch.Generator().manual_seed(seed))
    reference = transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = reference(tokens).logits
    scale = expected.abs().max()
    for tier in ("reference", "auto"):
        model = load_model(tmp_path, kernels=tier)
        with torch.no_grad():
            naive = model(tokens)
        assert (naive - expected).abs().max() < 1e-4 * scale
        absorbed = paged_logits(model, tokens[0], [length])
        assert (absorbed - expected[0]).abs().max() < 1e-4 * scale


@pytest.mark.parametrize("seed", [3, 11])
def test_bfloat16_stays_close_to_fp32(seed: int, tmp_path: Path) -> None:
    """bf16 weights: ours and transformers' bf16 are equally far from transformers' fp32."""
    length = random_checkpoint(seed, tmp_path)
    tokens = torch.randint(0, 97, (1, length), generator=torch.Generator().manual_seed(seed))
    load = transformers.DeepseekV3ForCausalLM.from_pretrained
    with torch.no_grad():
        exact = load(tmp_path, dtype=torch.float32).eval()(tokens).logits
        theirs = load(tmp_path, dtype=torch.bfloat16).eval()(tokens).logits.float()
        ours = load_model(tmp_path, dtype=torch.bfloat16)(tokens).float()
    their_error = (theirs - exact).abs().mean()
    assert (ours - exact).abs().mean() < 1.5 * their_error


@pytest.mark.parametrize("tier", ["reference", "auto"])
def test_prefill_equals_prefill_plus_decode_at_every_split(tier: str, tmp_path: Path) -> None:
    random_checkpoint(5, tmp_path)
    model = load_model(tmp_path, kernels=tier)
    tokens = torch.randint(0, 97, (70,), generator=torch.Generator().manual_seed(1))
    whole = paged_logits(model, tokens, [70])
    for k in range(1, 70):
        split = paged_logits(model, tokens, [k] + [1] * (70 - k))
        if model.kernels.name == "cpu":
            assert torch.equal(split, whole), f"split at {k}"
        else:
            assert torch.allclose(split, whole, atol=1e-5), f"split at {k}"
