"""A quantised copy of a model in training is what loading its checkpoint quantised would give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from ingle.kernels.quantized import Kind, Quantized
from ingle.models import CausalLM, DeepseekV3Config, build_model, load_model, save_model
from ingle.models.quantised import QuantisedCopy
from ingle.training.presets import model_preset

NANO = model_preset("nano")


def stored(model: CausalLM) -> dict[str, torch.Tensor]:
    """Every tensor that a model computes with, the parts of quantised ones by themselves."""
    found = {k: v for k, v in model.state_dict().items() if ".layers.3." not in k}
    for name, module in model.named_modules():
        for leaf in ("weight", "gate_up_proj", "down_proj"):
            weight = getattr(module, leaf, None)
            if isinstance(weight, Quantized) and ".layers.3." not in name:
                found |= {f"{name}.{leaf}:data": weight.data, f"{name}.{leaf}:scale": weight.scale}
    return found


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("tied", [False, True], ids=["two tables", "one table"])
def test_it_equals_what_loading_would_give(tmp_path: Path, kind: Kind, tied: bool) -> None:
    config = replace(NANO, num_hidden_layers=3, tie_word_embeddings=tied)
    assert isinstance(config, DeepseekV3Config) and config.mtp_layers == 1  # layer 3, left out
    model = build_model(config, seed=2).train()
    copy = QuantisedCopy(model, kind)
    places = {name: tensor.data_ptr() for name, tensor in stored(copy.model).items()}
    for step in range(2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
            model.model.layers[1].mlp.gate.e_score_correction_bias += 0.01
        copy.refresh()
        save_model(model, tmp_path / str(step), torch.float32)
        loaded = stored(load_model(tmp_path / str(step), torch.float32, quant=kind))
        mine = stored(copy.model)
        assert mine.keys() == loaded.keys()
        for name, tensor in mine.items():
            view = torch.uint8 if kind == "fp8" and name.endswith(":data") else tensor.dtype
            assert torch.equal(tensor.view(view), loaded[name].view(view)), name
        assert {name: tensor.data_ptr() for name, tensor in mine.items()} == places
    assert sum(name.endswith(":data") for name in places) >= 20
    assert not any(p.requires_grad for p in copy.model.parameters())
