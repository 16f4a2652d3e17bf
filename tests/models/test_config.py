"""A config.json that is wrong is refused by name, before anything is allocated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingle.errors import ConfigError, ModelNotFoundError
from ingle.models import read_config, resolve_model
from ingle.training.presets import model_preset


def write(folder: Path, **changes: Any) -> Path:
    raw = model_preset("tiny").to_json() | changes
    text = json.dumps({k: v for k, v in raw.items() if v != "absent"})
    (folder / "config.json").write_text(text)
    return folder


def test_a_config_survives_the_round_trip(tmp_path: Path) -> None:
    assert read_config(write(tmp_path)) == model_preset("tiny")


@pytest.mark.parametrize("preset", ["nano", "mini", "tiny"])
def test_presets_have_the_promised_size(preset: str) -> None:
    from ingle.models import build_model

    config = model_preset(preset)
    model = build_model(config, kernels="reference")
    mtp = f"model.layers.{config.num_hidden_layers}."
    count = sum(p.numel() for n, p in model.named_parameters() if not n.startswith(mtp))
    count += sum(b.numel() for n, b in model.named_buffers() if n.endswith("bias") and mtp not in n)
    assert count == config.count_parameters()
    assert count == pytest.approx({"nano": 1e6, "mini": 4.4e6, "tiny": 15e6}[preset], rel=0.15)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": "many"}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps"),
        ({"n_routed_experts": 0}, "n_routed_experts"),
        ({"num_experts_per_tok": 12}, "num_experts_per_tok"),
        ({"n_group": 5}, "n_group"),
        ({"topk_group": 9}, "topk_group"),
        ({"qk_rope_head_dim": 5}, "qk_rope_head_dim"),
        ({"vocab_size": 1 << 20, "hidden_size": 1 << 16, "n_routed_experts": 4096,
          "moe_intermediate_size": 1 << 16, "num_hidden_layers": 500}, "trillion"),
        ({"kv_lora_rank": "absent"}, "kv_lora_rank"),
        ({"model_type": "gpt2"}, "gpt2"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, "dynamic"),
        ({"rope_scaling": {"type": "yarn", "factor": 2}}, "original_max_position_embeddings"),
        ({"rope_scaling": {"type": "yarn", "factor": float("nan"),
                           "original_max_position_embeddings": 64}}, "rope_scaling"),
        ({"rope_scaling": 3}, "rope_scaling"),
        ({"eos_token_id": [1, "x"]}, "eos_token_id"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(changes: dict, named: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=named):
        read_config(write(tmp_path, **changes))


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 10_000, "\x00"])
def test_a_file_that_is_no_json_object_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError):
        read_config(tmp_path)


def test_a_missing_folder_or_config_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        resolve_model(tmp_path / "nowhere")
    with pytest.raises(ModelNotFoundError):
        read_config(tmp_path)
