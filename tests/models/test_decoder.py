"""All layers in one native call equal the loop over layers, to the last bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ingle.kernels import cpu
from ingle.models import build_model
from ingle.models.batch import StepBatch
from ingle.models.causal_lm import CausalLM
from ingle.models.config import LinearScaling, ModelConfig, Yarn
from ingle.models.deepseek import DeepseekConfig
from ingle.models.deepseek_v2 import DeepseekV2Config
from ingle.models.llama import LlamaConfig
from ingle.models.qwen2 import Qwen2Config
from ingle.models.qwen3 import Qwen3Config
from ingle.training.presets import model_preset

pytestmark = pytest.mark.skipif(not cpu.available(), reason=cpu.unavailable_reason())

NANO = model_preset("nano")
YARN = Yarn(factor=4.0, original_max_position_embeddings=64, mscale=1.0, mscale_all_dim=1.0)
DENSE: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 72, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "initializer_range": 0.3,
}  # fmt: skip
CONFIGS: dict[str, ModelConfig] = {
    "plain": NANO,
    "q_lora": replace(NANO, q_lora_rank=24),
    "groups": replace(NANO, n_group=4, topk_group=2, routed_scaling_factor=2.5),
    "dense": replace(NANO, first_k_dense_replace=3),
    "odd sizes": replace(
        NANO, hidden_size=100, kv_lora_rank=36, v_head_dim=20, qk_nope_head_dim=12
    ),
    "softmax": DeepseekV2Config(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        kv_lora_rank=24,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=12,
        moe_intermediate_size=32,
        n_routed_experts=8,
        num_experts_per_tok=3,
        n_group=4,
        topk_group=2,
        routed_scaling_factor=16.0,
        initializer_range=0.3,
    ),
    "llama": LlamaConfig(**DENSE, rope_scaling=LinearScaling(4.0)),
    "qwen2": Qwen2Config(**DENSE),
    "qwen3": Qwen3Config(**DENSE, head_dim=20),
    "moe-16b": DeepseekConfig(
        **DENSE, moe_intermediate_size=32, n_routed_experts=6, num_experts_per_tok=2
    ),
    "yarn": replace(NANO, rope_scaling=YARN),
}


def batches() -> list[StepBatch]:
    """Two prompts prefilled in one step, then a mixed step of drafts, a token and a new prompt."""
    tokens = torch.arange(300).remainder(97).tolist()
    first = [(tokens[:70], 0, [3, 1]), (tokens[90:100], 0, [0])]
    then = [(tokens[70:73], 70, [3, 1]), (tokens[100:101], 10, [0]), (tokens[200:266], 0, [2, 4])]
    return [StepBatch.build(first), StepBatch.build(then)]


def run(model: CausalLM, dtype: torch.dtype) -> list[torch.Tensor]:
    """Hidden rows and MTP rows of both steps, then what the caches hold."""
    cache = torch.zeros(model.cache_shape(5), dtype=dtype)
    mtp_cache = torch.zeros(model.cache_shape(5)[1:], dtype=dtype)
    results = []
    for batch in batches():
        hidden = model.step(batch, cache)
        results.append(hidden)
        if model.num_mtp:
            results.append(model.mtp_step(hidden, batch, mtp_cache))
    return [*results, cache, mtp_cache]


@pytest.mark.parametrize("cache", [torch.float32, torch.bfloat16], ids=["cache fp32", "cache bf16"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_one_call_equals_the_loop(
    name: str, kind: torch.dtype, cache: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(CONFIGS[name], 3, kernels="cpu").to(kind).requires_grad_(False)
    for layer in model.model.layers:
        if getattr(layer.mlp, "gate", None) and CONFIGS[name].router_bias:
            layer.mlp.gate.e_score_correction_bias = torch.randn(8) * 0.1
    main, mtp = model._whole_decoders()
    assert main is not None and (mtp is not None) == bool(model.num_mtp)
    fused = run(model, cache)
    monkeypatch.setattr(model, "_decoders", (None, None))
    for mine, theirs in zip(fused, run(model, cache), strict=True):
        assert torch.equal(mine, theirs)


def test_replaced_weights_are_noticed(tmp_path: Path) -> None:
    model = build_model(NANO, 3, kernels="cpu").requires_grad_(False)
    before = run(model, torch.float32)[0]
    other = build_model(NANO, 4, kernels="cpu").requires_grad_(False)
    model.load_state_dict(other.state_dict(), assign=True)
    assert torch.equal(run(model, torch.float32)[0], run(other, torch.float32)[0])
    assert not torch.equal(run(model, torch.float32)[0], before)
    rounded = other.to(torch.bfloat16)
    assert not torch.equal(run(rounded, torch.float32)[0], run(model, torch.float32)[0])


def test_weights_it_cannot_run_are_left_to_the_loop() -> None:
    model = build_model(NANO, 3, kernels="cpu").to(torch.float16)
    assert model._whole_decoders() == (None, None)


def test_rows_that_lead_outside_are_refused() -> None:
    model = build_model(NANO, 3, kernels="cpu").requires_grad_(False)
    batch = StepBatch.build([([1, 2, 3], 0, [7])])
    with pytest.raises(IndexError):
        model.step(batch, torch.zeros(model.cache_shape(2)))
