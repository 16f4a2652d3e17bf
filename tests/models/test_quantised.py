"""Models with quantised weights: what is rounded, how close they stay, and that nothing else
changes: prefill equals decode, one call equals the loop, fp8 checkpoints follow their formula."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ingle import LLM, SamplingParams
from ingle.errors import WeightsError
from ingle.kernels.quantized import Kind, Quantized, dequantise_blocks
from ingle.models import build_model, load_model, save_model
from ingle.models.qwen2 import Qwen2Config
from ingle.training.presets import model_preset
from ingle.weights.checkpoint import Checkpoint
from ingle.weights.safetensors import save_tensors
from tests.models.checkpoints import PAST_ORIGINAL, VOCABULARY, save_random
from tests.models.test_parity import paged_logits

KINDS: list[Kind] = ["int8", "int4", "fp8"]
MOST_KL = {"int8": 2e-3, "fp8": 2e-2, "int4": 2e-1}


def divergence(reference: Tensor, found: Tensor) -> float:
    """Mean KL(reference, found) per position, in nats."""
    p, q = reference.log_softmax(-1), found.log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["deepseek_v3", "deepseek_v2", "qwen2", "qwen3", "llama"])
def test_a_quantised_model_stays_close_and_consistent(
    family: str, kind: Kind, tmp_path: Path
) -> None:
    save_random(family, 2, tmp_path, std=0.1)
    tokens = torch.randint(
        0, VOCABULARY, (PAST_ORIGINAL,), generator=torch.Generator().manual_seed(1)
    )
    exact = load_model(tmp_path)
    model = load_model(tmp_path, quant=kind)
    kept = {type(layer.self_attn.o_proj.weight) for layer in model.model.layers}
    assert kept == {Quantized}
    with torch.no_grad():
        naive, expected = model(tokens[None])[0], exact(tokens[None])[0]
    whole = paged_logits(model, tokens, [PAST_ORIGINAL])
    assert divergence(expected, whole) < MOST_KL[kind]
    assert divergence(naive, whole) < MOST_KL[kind] / 10
    assert torch.equal(paged_logits(model, tokens, [31, 1, 1, 47]), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_one_call_equals_the_loop(kind: Kind, tmp_path: Path) -> None:
    save_random("deepseek_v3", 4, tmp_path, std=0.1)
    model = load_model(tmp_path, quant=kind, dtype=torch.bfloat16)
    tokens = torch.arange(70)
    main, _ = model._whole_decoders()
    assert main is not None
    fused = paged_logits(model, tokens, [40, 30])
    model._decoders = (None, None)
    assert torch.equal(paged_logits(model, tokens, [40, 30]), fused)


def test_the_reasoner_answers_in_every_storage() -> None:
    prompt = [{"role": "user", "content": "47+85="}]
    params = SamplingParams(temperature=0.0, max_tokens=120)
    answers = {}
    for quant in ("fp32", "bf16", "auto", "int8", "fp8"):
        (result,) = LLM(quant=quant).chat(prompt, params)  # type: ignore[arg-type]
        answers[quant] = result.text
    assert set(answers.values()) == {"132"}


def fp8_checkpoint(folder: Path, seed: int) -> dict[str, Tensor]:
    """A V3 folder as published: projections in fp8 with `weight_scale_inv`; returns fp32 twins."""
    sizes = {"hidden_size": 200, "intermediate_size": 300, "kv_lora_rank": 130, "q_lora_rank": 140}
    config = replace(model_preset("nano"), num_nextn_predict_layers=0, **sizes)
    save_model(build_model(config, seed), folder, torch.float32)
    stored, wide = {}, {}
    torch.manual_seed(seed)
    with Checkpoint(folder) as checkpoint:
        for name in checkpoint.entries:
            tensor = checkpoint.read(name)
            wide[name] = tensor
            if "_proj" in name:
                scale = torch.rand(*(-(-n // 128) for n in tensor.shape)) * 1e-3 + 1e-4
                squares = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)
                cut = squares[: tensor.shape[0], : tensor.shape[1]]
                stored[name] = (tensor / cut).clamp(-448, 448).to(torch.float8_e4m3fn)
                stored[name + "_scale_inv"] = scale
                wide[name] = dequantise_blocks(stored[name], scale)
            else:
                stored[name] = tensor
    save_tensors(folder / "model.safetensors", stored, {"format": "pt"})
    raw = json.loads((folder / "config.json").read_text())
    raw["quantization_config"] = {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
        "weight_block_size": [128, 128],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(raw))
    return wide


def test_an_fp8_checkpoint_is_what_its_formula_says(tmp_path: Path) -> None:
    (tmp_path / "fp8").mkdir()
    wide = fp8_checkpoint(tmp_path / "fp8", 1)
    model = load_model(tmp_path / "fp8")
    assert torch.equal(
        model.model.layers[0].self_attn.q_a_proj.weight,
        wide["model.layers.0.self_attn.q_a_proj.weight"],
    )
    experts = model.model.layers[1].mlp.experts
    up = wide["model.layers.1.mlp.experts.3.up_proj.weight"]
    assert torch.equal(experts.gate_up_proj[3, len(up) :], up)
    tokens = torch.arange(40)
    kept = load_model(tmp_path / "fp8", quant="fp8")
    weight = kept.model.layers[0].self_attn.o_proj.weight
    assert isinstance(weight, Quantized)
    assert torch.equal(weight.dequantise(), wide["model.layers.0.self_attn.o_proj.weight"])
    a, b = (paged_logits(m, tokens, [40]) for m in (model, kept))
    assert torch.allclose(a, b, atol=1e-4 * float(a.abs().max()))


def test_a_scale_that_is_missing_or_no_number_is_named(tmp_path: Path) -> None:
    fp8_checkpoint(tmp_path, 2)
    file, name = tmp_path / "model.safetensors", "model.layers.1.self_attn.o_proj.weight_scale_inv"
    with Checkpoint(tmp_path) as checkpoint:
        stored = {n: checkpoint.read(n) for n in checkpoint.entries}
    save_tensors(file, {n: t for n, t in stored.items() if n != name}, {})
    with pytest.raises(WeightsError, match=name):
        load_model(tmp_path)
    stored[name] = torch.full_like(stored[name], float("nan"))
    save_tensors(file, stored, {})
    with pytest.raises(WeightsError, match="finite"):
        load_model(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_start_reads_what_the_first_kept(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGLE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    save_random("deepseek_v3", 6, folder, std=0.1)
    tokens = torch.arange(40)
    first = paged_logits(load_model(folder, quant=kind, keep=True), tokens, [40])
    (kept,) = (tmp_path / "cache" / "weights").iterdir()
    monkeypatch.setattr("ingle.models.place.fill", None)  # the second start rounds nothing
    second = paged_logits(load_model(folder, quant=kind, keep=True), tokens, [40])
    assert torch.equal(first, second)
    kept.write_bytes(kept.read_bytes()[:-64])
    with pytest.raises(WeightsError, match="truncated"):
        load_model(folder, quant=kind, keep=True)


def test_a_changed_shard_is_not_answered_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGLE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    outputs = []
    for seed in (6, 7):
        save_random("llama", 6, folder, std=0.1)
        with Checkpoint(folder) as checkpoint:
            tensors = {name: checkpoint.read(name) for name in checkpoint.entries}
        tensors["model.norm.weight"] += seed
        save_tensors(folder / "model.safetensors", tensors, {})
        model = load_model(folder, quant="int8", keep=True)
        outputs.append(paged_logits(model, torch.arange(5), [5]))
    assert not torch.equal(*outputs)
    assert len(list((tmp_path / "cache" / "weights").iterdir())) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_tied_table_stays_one_table(kind: Kind, tmp_path: Path) -> None:
    config = Qwen2Config(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, tie_word_embeddings=True,
    )  # fmt: skip
    save_model(build_model(config, 1), tmp_path, torch.float32)
    model = load_model(tmp_path, quant=kind)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.isfinite(paged_logits(model, torch.arange(20), [20])).all()
