"""`ingle doctor` on folders that hold a config alone: the published sizes, and advice that fits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ingle.cli.main import main
from ingle.engine import fit, storage
from ingle.models import resolve_model

_YARN = {
    "type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
    "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
}  # fmt: skip
_MLA = {
    "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "rope_scaling": _YARN, "max_position_embeddings": 163840, "first_k_dense_replace": 1,
}  # fmt: skip


def _dense(kind: str, layers: int, hidden: int, inner: int, heads: int, keys: int, vocabulary: int):  # type: ignore[no-untyped-def]
    return {
        "model_type": kind, "num_hidden_layers": layers, "hidden_size": hidden,
        "intermediate_size": inner, "num_attention_heads": heads, "num_key_value_heads": keys,
        "vocab_size": vocabulary, "max_position_embeddings": 4096,
    }  # fmt: skip


V3 = _MLA | {
    "model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
    "num_nextn_predict_layers": 1, "num_attention_heads": 128, "n_shared_experts": 1,
    "n_routed_experts": 256, "routed_scaling_factor": 2.5, "q_lora_rank": 1536, "n_group": 8,
    "topk_group": 4, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "norm_topk_prob": True,
}  # fmt: skip
V2 = _MLA | {
    "model_type": "deepseek_v2", "vocab_size": 102400, "hidden_size": 5120,
    "intermediate_size": 12288, "moe_intermediate_size": 1536, "num_hidden_layers": 60,
    "num_attention_heads": 128, "n_shared_experts": 2, "n_routed_experts": 160, "q_lora_rank": 1536,
    "n_group": 8, "topk_group": 3, "num_experts_per_tok": 6, "topk_method": "group_limited_greedy",
    "routed_scaling_factor": 16.0,
}  # fmt: skip
V2_LITE = _MLA | {
    "model_type": "deepseek_v2", "vocab_size": 102400, "hidden_size": 2048,
    "intermediate_size": 10944, "moe_intermediate_size": 1408, "num_hidden_layers": 27,
    "num_attention_heads": 16, "n_shared_experts": 2, "n_routed_experts": 64,
    "num_experts_per_tok": 6, "topk_method": "greedy",
}  # fmt: skip

# Parameters in billions as published: model cards and papers (V3 without its MTP module)
PUBLISHED: list[tuple[str, dict[str, Any], float, float | None]] = [
    ("DeepSeek-R1", V3, 671.0, 37.0),
    ("DeepSeek-V2", V2, 235.7, 21.4),
    ("DeepSeek-V2-Lite", V2_LITE, 15.7, 2.4),
    ("R1-Distill-Llama-70B", _dense("llama", 80, 8192, 28672, 64, 8, 128256), 70.55, None),
    ("R1-Distill-Llama-8B", _dense("llama", 32, 4096, 14336, 32, 8, 128256), 8.03, None),
    ("R1-Distill-Qwen-32B", _dense("qwen2", 64, 5120, 27648, 40, 8, 152064), 32.76, None),
    ("R1-Distill-Qwen-7B", _dense("qwen2", 28, 3584, 18944, 28, 4, 152064), 7.62, None),
    ("R1-Distill-Qwen-1.5B", _dense("qwen2", 28, 1536, 8960, 12, 2, 151936), 1.78, None),
    ("DeepSeek-LLM-67B", _dense("llama", 95, 8192, 22016, 64, 8, 102400), 67.4, None),
]


def facts_of(folder: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> Any:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["doctor", str(folder), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 GB free, read at 40 GB a second: advice must not depend on where the tests run."""
    monkeypatch.setattr(storage, "available_memory", lambda: 16_000_000_000)
    monkeypatch.setattr(fit, "measure_bandwidth", lambda: 40e9)


@pytest.mark.parametrize(("name", "config", "billions", "active"), PUBLISHED)
def test_sizes_are_the_published_ones_within_a_percent(
    name: str, config: dict[str, Any], billions: float, active: float | None, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    facts = facts_of(tmp_path / name, config, capsys)
    assert facts["parameters"] == pytest.approx(billions * 1e9, rel=0.01)
    if active:
        assert facts["active_parameters"] == pytest.approx(active * 1e9, rel=0.15)
    bf16 = next(way for way in facts["ways"] if way["kind"] == "bf16")
    extra = facts["parts"].get("multi-token prediction", 0)
    assert bf16["weights"] == pytest.approx((billions * 1e9 + extra) * 2, rel=0.01)


def test_r1_is_told_from_its_distills_and_each_gets_its_own_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = {name: config for name, config, *_ in PUBLISHED}
    r1 = facts_of(tmp_path / "DeepSeek-R1", V3, capsys)
    assert "671 billion parameters. DeepSeek's own architecture" in r1["what"]
    assert "experts on disk" in r1["advice"]
    assert 0 < r1["on_disk"]["share"] < 0.05
    distill = facts_of(tmp_path / "R1-Distill-Qwen-7B", configs["R1-Distill-Qwen-7B"], capsys)
    assert "It is not R1 itself" in distill["what"]
    assert distill["advice"].startswith("It fits in int8")
    assert distill["on_disk"] is None
    large = facts_of(tmp_path / "R1-Distill-Llama-70B", configs["R1-Distill-Llama-70B"], capsys)
    assert "does not fit" in large["advice"] and "smaller model" in large["advice"]


def test_the_cache_is_the_formulas_and_speed_is_bandwidth_over_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = facts_of(tmp_path / "lite", V2_LITE, capsys)
    assert facts["cache_bytes_per_token"] == 27 * (512 + 64) * 2
    int4 = next(way for way in facts["ways"] if way["kind"] == "int4")
    read = facts["active_parameters"] * 4.25 / 8
    assert int4["tokens_per_second"] == pytest.approx(40e9 / read)
    room = (16e9 * 0.92 - int4["weights"]) // facts["cache_bytes_per_token"]
    assert int4["context"] == pytest.approx(min(163840, room), rel=0.001)


def test_keys_that_are_not_known_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = PUBLISHED[-1][1] | {"mystery_factor": 3}
    assert facts_of(tmp_path / "llm", config, capsys)["unknown_keys"] == ["mystery_factor"]
    folder = tmp_path / "reasoner"
    shutil.copytree(resolve_model(None), folder)
    config = json.loads((folder / "config.json").read_text()) | {"mystery_factor": 3}
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["generate", str(folder), "-p", "47+85=", "--max-tokens", "2"]) == 0
    assert "Keys of config.json not known here: mystery_factor." in capsys.readouterr().err
