"""Calibration: the measure is the plain mean square, and rounding for it loses less."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ingle import LLM
from ingle.models import load_model, resolve_model
from ingle.models.calibrate import input_importance
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


def test_rounding_for_a_text_loses_less_on_such_text() -> None:
    """On the shipped reasoner: KL to fp32 over questions of other numbers than those calibrated."""
    folder = resolve_model(None)
    llm = LLM(folder)
    assert llm.tokenizer is not None
    text, other = (
        "\n".join(f"What is {n} + {n * 7 % 100}? Sort {n}, {n * 3 % 90}, 5." for n in range(a, b))
        for a, b in ((10, 40), (50, 80))
    )
    importance = input_importance(
        load_model(folder), torch.tensor([llm.tokenizer.encode(text)[:600]])
    )
    asked = torch.tensor([llm.tokenizer.encode(other)[:600]])
    exact = load_model(folder)(asked).log_softmax(-1)

    def loss(weights: dict[str, Tensor] | None) -> float:
        found = load_model(folder, quant="int4", importance=weights)(asked).log_softmax(-1)
        return float((exact.exp() * (exact - found)).sum(-1).mean())

    assert loss(importance) < 0.9 * loss(None)


def test_a_calibrated_file_is_kept_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGLE_CACHE", str(tmp_path / "cache"))
    for text in (None, "47+85=", "sort 3, 1, 2"):
        LLM(quant="int4", keep_quantised=True, calibration=text)
    LLM(quant="int4", keep_quantised=True, calibration="47+85=")
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 3
