"""Calibration: the measure is the plain mean square, and rounding for it loses less."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ingle import LLM
from ingle.models import load_model, resolve_model
from ingle.models.calibrate import input_importance
from ingle.models.causal_lm import CausalLM
from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import TASKS, Split, sample
from ingle.training.data import PackedBatch, chat_document, pack
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
    """On the shipped reasoner: KL to fp32 where it writes worked examples it was not shown."""
    folder = resolve_model(None)
    tokenizer = Tokenizer.load(folder)

    def worked(split: Split) -> PackedBatch:
        rng = random.Random(split)
        tasks = [task for task in TASKS if task != "chat"] * 3
        problems = [sample(rng, task, 3, split) for task in tasks]
        documents = [chat_document([], problem, tokenizer) for problem in problems]
        size = sum(len(document.tokens) for document in documents)
        return pack(iter([*documents, documents[0]]), size, size, 2)

    shown, asked = worked("train"), worked("test")
    exact = load_model(folder)
    importance = input_importance(exact, shown.tokens_T[None, :1000])
    written = asked.targets_T != -100

    def logits(model: CausalLM) -> Tensor:
        return model(asked.tokens_T[None], asked.starts_T)[0, written].log_softmax(-1)

    expected = logits(exact)

    def loss(weights: dict[str, Tensor] | None) -> float:
        found = logits(load_model(folder, quant="int4", importance=weights))
        return float((expected.exp() * (expected - found)).sum(-1).mean())

    assert loss(importance) < 0.9 * loss(None)


def test_a_calibrated_file_is_kept_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGLE_CACHE", str(tmp_path / "cache"))
    for text in (None, "47+85=", "sort 3, 1, 2"):
        LLM(quant="int4", keep_quantised=True, calibration=text)
    LLM(quant="int4", keep_quantised=True, calibration="47+85=")
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 3
