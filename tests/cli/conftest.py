"""A tiny random model in a folder, as `ingle train` would have left it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ingle.models import DeepseekV3Config, build_model, save_model
from ingle.training.tokenizer import build_tokenizer

CONFIG = DeepseekV3Config(
    vocab_size=512,
    hidden_size=32,
    intermediate_size=48,
    moe_intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    n_routed_experts=4,
    num_experts_per_tok=2,
    kv_lora_rank=16,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=8,
    max_position_embeddings=256,
)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-model"
    save_model(build_model(CONFIG), folder, torch.float32)
    build_tokenizer(folder)
    return folder
