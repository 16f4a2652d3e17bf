"""Adapters: nothing changes at first, only they are trained, and PEFT computes the same."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from ingle.errors import ConfigError, IngleError, WeightsError
from ingle.models import CausalLM, load_model
from ingle.privacy.digests import hash_files
from ingle.privacy.statement import verify_statement
from ingle.training.finetuning.lora import LoraConfig, add_adapters, load_adapter, save_adapter
from ingle.training.finetuning.merge import merge_adapter
from ingle.weights.adapter import CONFIG, WEIGHTS, AdaptedCheckpoint, open_checkpoint
from ingle.weights.checkpoint import Checkpoint
from ingle.weights.safetensors import read_tensors, save_tensors
from tests.weights.parts import split_weights

transformers = pytest.importorskip("transformers")

from tests.models.checkpoints import CONFIGS, VOCABULARY, save_random  # noqa: E402

LORA = LoraConfig(rank=4, alpha=8.0)


def base(family: str, folder: Path, seed: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    save_random(family, seed, folder / "base")
    return folder / "base"


def adapted(folder: Path, config: LoraConfig = LORA, spread: float = 0.0) -> CausalLM:
    """A model with adapters; spread: of B, which is zero at first."""
    model = load_model(folder, kernels="reference")
    add_adapters(model, config, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(0, spread, generator=generator)
    return model


def tokens() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("family", CONFIGS)
def test_a_fresh_adapter_changes_nothing(family: str, tmp_path: Path) -> None:
    folder = base(family, tmp_path)
    plain, model = load_model(folder, kernels="reference"), adapted(folder)
    starts = torch.tensor([0] * 10 + [10] * 14, dtype=torch.int32)
    with torch.no_grad():
        # not to the last bit: where weights lie in memory can change the order of a sum
        same = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)
        same(model(tokens()), plain(tokens()))
        packed = tokens()[:1]
        same(model(packed, starts), plain(packed, starts))


@pytest.mark.parametrize("family", CONFIGS)
def test_only_adapters_learn_and_all_of_them(family: str, tmp_path: Path) -> None:
    model = adapted(base(family, tmp_path), spread=0.1).train()
    model(tokens()).square().mean().backward()
    for name, parameter in model.named_parameters():
        is_adapter = name.endswith(("lora_A", "lora_B"))
        assert (parameter.grad is not None) == parameter.requires_grad == is_adapter, name
        assert not is_adapter or bool(parameter.grad.any())


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("parts", [False, True])
def test_merged_weights_compute_the_same(family: str, parts: bool, tmp_path: Path) -> None:
    folder = base(family, tmp_path)
    if parts:
        split_weights(folder)
    model = adapted(folder, spread=0.2)
    (tmp_path / "adapter").mkdir()
    save_adapter(model, LORA, tmp_path / "adapter")
    merge_adapter(folder, tmp_path / "adapter", tmp_path / "merged")
    merged = load_model(tmp_path / "merged", kernels="reference")
    rows = verify_statement(tmp_path / "merged", hash_files(tmp_path / "merged"))
    assert [row.status for row in rows] == ["verified"]  # the statement speaks of every file
    with torch.no_grad():
        expected, found = model(tokens()), merged(tokens())
        plain = load_model(folder, kernels="reference")(tokens())
    scale = expected.abs().max()
    assert (found - expected).abs().max() < 1e-5 * scale
    assert (plain - expected).abs().max() > 0.05 * scale  # the adapter does something
    again = adapted(folder)
    load_adapter(again, tmp_path / "adapter")
    with torch.no_grad():
        assert torch.equal(again(tokens()), expected)


def test_targets_choose_the_matrices(tmp_path: Path) -> None:
    folder = base("deepseek_v3", tmp_path)
    names = {}
    for target in ("attention", "mlp", "experts"):
        config = LoraConfig(4, 8.0, (target,))
        save_adapter(adapted(folder, config), config, tmp_path)
        content = json.loads((tmp_path / CONFIG).read_text())
        names[target] = {name.removeprefix("base_model.model.model.layers.") for name, _ in
                         read_tensors(tmp_path / WEIGHTS)}  # fmt: skip
        assert (content["r"], content["lora_alpha"]) == (4, 8.0)
    assert all(".self_attn." in name for name in names["attention"])
    assert all(".mlp.experts." in name for name in names["experts"])
    assert all(".mlp." in name and ".experts." not in name for name in names["mlp"])
    assert min(map(len, names.values())) > 0
    experts = load_model(folder).config.n_routed_experts
    assert sum(name.startswith("1.") for name in names["experts"]) == 6 * experts
    with pytest.raises(ConfigError, match="multiple of 4"):
        adapted(folder, LoraConfig(3))
    with pytest.raises(ConfigError, match="no matrices"):
        adapted(base("qwen2", tmp_path / "dense"), LoraConfig(4, 8.0, ("experts",)))
    with pytest.raises(ConfigError, match="among attention"):
        LoraConfig(4, 8.0, ("router",))


def test_a_base_in_bfloat16_takes_adapters_in_fp32(tmp_path: Path) -> None:
    for family in ("qwen2", "deepseek_v3"):
        folder = base(family, tmp_path / family)
        model = load_model(folder, torch.bfloat16, "reference").train()
        add_adapters(model, LORA)
        logits = model(tokens())
        logits.float().logsumexp(-1).mean().backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        assert {p.dtype for p in trained} == {torch.float32}
        assert all(p.grad is not None for p in trained)


def test_rows_read_in_pieces_are_the_merged_rows(tmp_path: Path) -> None:
    folder = base("qwen2", tmp_path)
    (tmp_path / "adapter").mkdir()
    save_adapter(adapted(folder, spread=0.2), LORA, tmp_path / "adapter")
    name = "model.layers.1.mlp.down_proj.weight"
    pairs = dict(read_tensors(tmp_path / "adapter" / WEIGHTS))
    down, up = (pairs[f"base_model.model.{name[:-7]}.lora_{x}.weight"] for x in "AB")
    with Checkpoint(folder) as plain, open_checkpoint(folder, tmp_path / "adapter") as both:
        whole = plain.read(name) + 2.0 * up @ down
        parts = [both.read(name, first, first + 4) for first in range(0, len(whole), 4)]
        assert torch.allclose(torch.cat(parts), whole, atol=1e-6)
        assert torch.equal(both.read("model.norm.weight"), plain.read("model.norm.weight"))


def change_config(folder: Path, **changes: object) -> None:
    content = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(content | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"use_dora": True}, "use_dora"), ({"bias": "all"}, "biases"), ({"r": 0}, "r must be"),
     ({"peft_type": "IA3"}, "peft_type"), ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
     ({"lora_alpha": True}, "lora_alpha"), ({"r": 5}, "rank r")],
)  # fmt: skip
def test_adapters_of_other_kinds_are_refused(changes: dict, words: str, tmp_path: Path) -> None:
    folder = base("qwen2", tmp_path)
    save_adapter(adapted(folder), LORA, tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(IngleError, match=words):
        AdaptedCheckpoint(folder, tmp_path)


def test_an_adapter_must_fit_its_base(tmp_path: Path) -> None:
    folder, other = base("qwen2", tmp_path), base("llama", tmp_path / "other", seed=2)
    save_adapter(adapted(folder), LORA, tmp_path)
    with pytest.raises(WeightsError, match="another model"):
        merge_adapter(other, tmp_path, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    with pytest.raises(WeightsError, match="other matrices"):
        load_adapter(adapted(other), tmp_path)
    tensors = dict(read_tensors(tmp_path / WEIGHTS))
    tensors.pop(next(iter(tensors)))
    save_tensors(tmp_path / WEIGHTS, {k: v.clone() for k, v in tensors.items()}, {})
    with pytest.raises(WeightsError, match="incomplete"):
        AdaptedCheckpoint(folder, tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(WeightsError, match="pickled"):
        AdaptedCheckpoint(folder, tmp_path)
    with pytest.raises(ConfigError, match="not empty"):
        merge_adapter(folder, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("family", "targets"),
    [("qwen2", ("attention", "mlp")), ("llama", ("mlp",)), ("deepseek_v3", ("attention",)),
     ("deepseek_v3", ("experts",))],
)  # fmt: skip
def test_peft_reads_our_adapter_and_computes_the_same(
    family: str, targets: tuple[str, ...], tmp_path: Path
) -> None:
    """In a mixture PEFT takes all gate, up and down matrices for the experts', so one or other."""
    peft = pytest.importorskip("peft")
    folder = base(family, tmp_path)
    config = LoraConfig(4, 8.0, targets)
    model = adapted(folder, config, spread=0.2)
    save_adapter(model, config, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path).eval()
    with torch.no_grad():
        expected, found = theirs(tokens()).logits, model(tokens())
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_we_read_an_adapter_of_peft(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    folder = base("qwen2", tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = peft.LoraConfig(
        r=3, lora_alpha=5, use_rslora=True, init_lora_weights=False, task_type="CAUSAL_LM",
        target_modules=["q_proj", "down_proj"],
    )  # fmt: skip
    theirs = peft.get_peft_model(theirs, config).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    merge_adapter(folder, tmp_path / "adapter", tmp_path / "merged")
    with torch.no_grad():
        expected = theirs(tokens()).logits
        found = load_model(tmp_path / "merged", kernels="reference")(tokens())
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
