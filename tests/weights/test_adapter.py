"""A model loaded with an adapter is the merged model, whatever its weights are kept in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ingle.engine.llm import LLM
from ingle.engine.request import SamplingParams
from ingle.kernels.quantized import Kind
from ingle.models import load_model, resolve_model, save_model
from ingle.training.finetuning.lora import LoraConfig, add_adapters, save_adapter
from ingle.training.finetuning.merge import merge_adapter


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model in fp32, so that nothing is rounded where an adapter is summed in."""
    shipped = resolve_model(None)
    folder = tmp_path_factory.mktemp("base")
    save_model(load_model(shipped), folder, torch.float32)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(shipped / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = load_model(base, kernels="reference")
    config = LoraConfig(4, 8.0)
    add_adapters(model, config, seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(model, config, folder)
    return folder


@pytest.mark.parametrize("quant", [None, "int8", "int4"])
def test_merged_at_load_is_merged_on_disk(
    quant: Kind | None, base: Path, adapter: Path, tmp_path: Path
) -> None:
    merge_adapter(base, adapter, tmp_path / "merged")
    tokens = torch.randint(0, 500, (1, 40), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        plain, at_load, on_disk = (
            load_model(folder, kernels="reference", quant=quant, adapter=given)(tokens)
            for folder, given in ((base, None), (base, adapter), (tmp_path / "merged", None))
        )
    scale = on_disk.abs().max()
    assert (at_load - plain).abs().max() > 0.05 * scale
    assert (at_load - on_disk).abs().max() < 1e-3 * scale


def test_an_engine_serves_an_adapter(base: Path, adapter: Path) -> None:
    prompt = list(range(5, 45))
    params = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True, logprobs=0)
    llm = LLM(base, "fp32", adapter=adapter)
    found = llm.generate(prompt, params)[0]
    chosen = torch.tensor(found.token_ids)[:, None]
    with_it, without = (load_model(base, kernels="reference", adapter=a) for a in (adapter, None))
    with torch.no_grad():
        whole = torch.tensor([prompt + found.token_ids])
        by_merged, by_base = (
            model(whole)[0, len(prompt) - 1 : -1].log_softmax(-1).gather(1, chosen)[:, 0]
            for model in (with_it, without)
        )
    assert torch.allclose(torch.tensor(found.logprobs), by_merged, atol=1e-3)
    assert (by_base - by_merged).abs().max() > 0.05
