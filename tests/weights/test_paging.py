"""Experts that stay on disk: the same numbers, no more memory than allowed, clear refusals."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ingle import LLM, SamplingParams
from ingle.engine import storage
from ingle.engine.storage import choose_storage, expert_bytes
from ingle.errors import MemoryNeededError, WeightsError
from ingle.kernels.quantized import Kind
from ingle.models import build_model, load_model, read_config, save_model
from ingle.models.layers.moe import MoE
from ingle.models.qwen2 import Qwen2Config
from ingle.training.presets import model_preset
from ingle.training.tokenizer import build_tokenizer
from ingle.weights.paging import MappedWeights
from tests.models.checkpoints import save_random
from tests.models.test_parity import paged_logits

LAYERS = 4  # mixtures of the model below, its MTP module included
EXPERT = 3 * 128 * 256  # bytes of one of its experts in int8


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGLE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small mixture whose experts are several pages long."""
    config = replace(
        model_preset("nano"), hidden_size=128, moe_intermediate_size=256, n_routed_experts=16,
        initializer_range=0.1,
    )  # fmt: skip
    where = tmp_path / "model"
    save_model(build_model(config, seed=3), where, torch.bfloat16)
    build_tokenizer(where)
    return where


def layers(model: torch.nn.Module) -> list[MoE]:
    return [module for module in model.modules() if isinstance(module, MoE)]


@pytest.mark.parametrize("kind", [None, "int8", "int4", "fp8"])
@pytest.mark.parametrize("family", ["deepseek_v3", "deepseek_v2"])
def test_experts_on_disk_give_the_same_logits(
    family: str, kind: Kind | None, tmp_path: Path
) -> None:
    save_random(family, 5, tmp_path / "model", std=0.1)
    tokens = torch.randint(0, 97, (90,), generator=torch.Generator().manual_seed(1))
    expected = paged_logits(load_model(tmp_path / "model", quant=kind), tokens, [60, 1, 29])
    for _ in ("made", "found"):
        model = load_model(tmp_path / "model", quant=kind, expert_bytes=1)
        assert model.mapped is not None and all(layer.paged for layer in layers(model))
        assert torch.equal(paged_logits(model, tokens, [60, 1, 29]), expected)
        assert 0 < model.mapped.stats.read <= model.mapped.stats.wanted


def test_memory_stays_within_the_limit_and_forgotten_experts_leave_it(folder: Path) -> None:
    model = load_model(folder, quant="int8", expert_bytes=LAYERS * 4 * EXPERT)
    mapped = model.mapped
    assert mapped is not None
    assert {layer.paged.capacity for layer in layers(model)} == {4}
    assert mapped.stats.limit == len(layers(model)) * 4 * EXPERT
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        paged_logits(model, torch.randint(0, 512, (40,), generator=generator), [40])
        assert mapped.stats.resident <= mapped.stats.limit
        # the kernel may map neighbours of a page that are in its own cache anyway
        assert resident_bytes(mapped) < 0.5 * mapped.stats.experts
    assert mapped.stats.read > mapped.stats.limit  # more than fits has been in use


def resident_bytes(mapped: MappedWeights) -> int:
    """What the kernel counts of the mapping as this process's memory."""
    text = Path("/proc/self/smaps").read_text()
    parts = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", text)
    found = [part for part in parts if mapped.path.name in part]
    assert found
    return sum(1024 * int(re.search(r"\nRss: +(\d+) kB", part)[1]) for part in found)


def test_experts_in_use_stay_and_the_least_used_goes(folder: Path) -> None:
    layer = layers(load_model(folder, quant="int8", expert_bytes=LAYERS * 3 * EXPERT))[0].paged
    assert layer is not None and layer.capacity == 3
    for chosen in ([0, 1], [0, 1], [2], [3], [4]):
        with layer.holding(torch.tensor(chosen)):
            assert layer.resident >= set(chosen)
    assert layer.resident >= {0, 1} and len(layer.resident) == 3
    before = layer.file.stats.read
    with layer.holding(torch.tensor([[1, 0], [0, 1]])):
        pass
    assert layer.file.stats.read == before


def test_a_long_prompt_may_choose_more_experts_than_are_kept(folder: Path) -> None:
    layer = layers(load_model(folder, quant="int8", expert_bytes=1))[0].paged
    assert layer is not None and layer.capacity == 2  # what one token chooses
    with layer.holding(torch.arange(16)):
        assert len(layer.resident) == 16
    assert len(layer.resident) == 2


def test_the_engine_answers_alike(folder: Path) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    prompts = [[5, 6, 7], list(range(20, 90))]
    plain, paged = LLM(folder, quant="int8"), LLM(folder, quant="int8", expert_bytes=2 * EXPERT)
    assert plain.mapped is None and paged.mapped is not None
    expected = [result.token_ids for result in plain.generate(prompts, params)]
    assert [result.token_ids for result in paged.generate(prompts, params)] == expected
    assert "GB of experts" in paged.mapped.notice()
    assert re.search(r"\d+% of what the disk gives", paged.mapped.report())


def test_a_full_disk_is_named_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(WeightsError, match=r"need 0\.0 GB on disk \(No space left"):
        load_model(folder, quant="int8", expert_bytes=1)
    assert not list(folder.parent.glob("cache/**/*.partial"))


def test_a_mixture_that_does_not_fit_stays_on_disk_and_a_dense_model_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_config(folder)
    whole = storage.weight_bytes(config, "bf16")
    assert choose_storage("auto", config, torch.bfloat16).experts is None
    monkeypatch.setattr(storage, "available_memory", lambda: whole // 2)
    chosen = choose_storage("bf16", config, torch.bfloat16)
    rest = whole - expert_bytes(config, "bf16")
    assert chosen.experts == int(0.9 * (whole // 2)) - rest
    monkeypatch.setattr(storage, "available_memory", lambda: rest)
    with pytest.raises(MemoryNeededError, match=r"--quant int4"):
        choose_storage("bf16", config, torch.bfloat16)
    dense = Qwen2Config(
        vocab_size=1000, hidden_size=256, intermediate_size=512, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    monkeypatch.setattr(storage, "available_memory", lambda: 1 << 20)
    with pytest.raises(MemoryNeededError, match="a smaller model"):
        choose_storage("bf16", dense, torch.bfloat16)
