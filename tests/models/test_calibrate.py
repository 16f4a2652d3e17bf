"""Calibration: the measure is the plain mean square, and rounding for it loses less."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ingle import LLM
from ingle.models import load_model
from ingle.models.calibrate import input_importance
from ingle.weights.safetensors import read_tensors, save_tensors
from tests.models.checkpoints import VOCABULARY, save_random


def tokens(count: int, seed: int, vocabulary: int = VOCABULARY) -> Tensor:
    return torch.randint(0, vocabulary, (1, count), generator=torch.Generator().manual_seed(seed))


def test_importance_is_the_mean_square_of_each_matrix_input(tmp_path: Path) -> None:
    save_random("deepseek_v3", 3, tmp_path)
    model = load_model(tmp_path)
    ids = tokens(40, 1)
    found = input_importance(model, ids)
    seen: dict[str, Tensor] = {}
    names = {module: name for name, module in model.named_modules()}

    def keep(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[names[module]] = inputs[0]

    layer = model.model.layers[-1]
    watched = [layer.self_attn.o_proj, layer.mlp.experts, layer.mlp.shared_experts.down_proj]
    for module in watched:
        module.register_forward_pre_hook(keep)
    routes: list[tuple[Tensor, ...]] = []
    layer.mlp.experts.register_forward_pre_hook(lambda _, inputs: routes.append(inputs))
    with torch.no_grad():
        model(ids)
    for name, x in seen.items():
        leaf = f"{name}.gate_up_proj" if name.endswith("experts") else f"{name}.weight"
        assert torch.allclose(found[leaf], x.flatten(0, -2).square().mean(0), rtol=1e-4), leaf
    x_ND, ids_NK, *_ = routes[0]
    hidden = []
    for row, chosen in zip(x_ND, ids_NK.tolist(), strict=True):
        for expert in chosen:
            gate, up = F.linear(row, layer.mlp.experts.gate_up_proj[expert]).chunk(2, -1)
            hidden.append(F.silu(gate) * up)
    expected = torch.stack(hidden).square().mean(0)
    down = found[f"{names[layer.mlp.experts]}.down_proj"]
    assert torch.allclose(down, expected, rtol=1e-4)


@pytest.mark.parametrize("family", ["deepseek_v3", "qwen2"])
def test_rounding_for_a_text_loses_less_where_inputs_differ_in_size(
    family: str, tmp_path: Path
) -> None:
    """As in large models, a few channels carry most of the signal: their norms are large."""
    losses = [_losses(family, seed, tmp_path) for seed in range(6)]
    assert sum(fitted for _, fitted in losses) < 0.9 * sum(plain for plain, _ in losses)


def _losses(family: str, seed: int, folder: Path) -> tuple[float, float]:
    """KL to fp32 of int4, rounded for nothing and for a text, on another text."""
    save_random(family, seed, folder, std=0.1)
    path = folder / "model.safetensors"
    tensors = dict(read_tensors(path))
    for name, weight in tensors.items():
        if name.endswith("layernorm.weight") and "a_layernorm" not in name:
            weight[:3] *= 12.0
            weight[3:] *= 0.5
    save_tensors(path, tensors, {"format": "pt"})
    shown, asked = tokens(200, 1), tokens(200, 2)
    exact = load_model(folder)
    importance = input_importance(exact, shown)
    expected = exact(asked).log_softmax(-1)

    def loss(weights: dict[str, Tensor] | None) -> float:
        found = load_model(folder, quant="int4", importance=weights)(asked).log_softmax(-1)
        return float((expected.exp() * (expected - found)).sum(-1).mean())

    return loss(None), loss(importance)


def test_a_calibrated_file_is_kept_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGLE_CACHE", str(tmp_path / "cache"))
    for text in (None, "47+85=", "sort 3, 1, 2"):
        LLM(quant="int4", keep_quantised=True, calibration=text)
    LLM(quant="int4", keep_quantised=True, calibration="47+85=")
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 3
