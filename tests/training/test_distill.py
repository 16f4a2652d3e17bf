"""Distillation: divergences against torch, resuming, and a student that comes nearer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ingle.errors import ConfigError
from ingle.models import build_model, load_model, save_model
from ingle.training.data import Mixture
from ingle.training.distill import (
    DistillRun,
    Way,
    forward_divergence,
    reverse_divergence,
    train_distill,
)
from ingle.training.loop import Run
from ingle.training.opening import write_tokenizer
from ingle.training.optim import OptimConfig
from ingle.training.presets import model_preset
from ingle.training.tokenizer import build_tokenizer

ASKED = Mixture({"sums": 1.0}, chat=True, levels=(1,))


def random_logprobs(seed: int) -> torch.Tensor:
    logits = 2 * torch.randn(5, 40, generator=torch.Generator().manual_seed(seed))
    return logits.double().log_softmax(-1)


def test_divergences_equal_torch() -> None:
    p_TV, q_TV = random_logprobs(1), random_logprobs(2)
    kl = torch.nn.functional.kl_div(q_TV, p_TV, reduction="none", log_target=True).sum(-1)
    assert torch.allclose(forward_divergence(p_TV, q_TV, 0), kl)
    assert torch.allclose(reverse_divergence(q_TV, p_TV), kl)
    assert torch.allclose(forward_divergence(p_TV, q_TV, 40), kl)
    assert torch.allclose(forward_divergence(p_TV, p_TV, 7), torch.zeros(5, dtype=torch.double))


def test_the_likeliest_tokens_by_hand() -> None:
    teacher = torch.tensor([[0.6, 0.2, 0.15, 0.05]]).log()
    student = torch.tensor([[0.3, 0.3, 0.2, 0.2]]).log()
    p, q = torch.tensor([0.75, 0.25]), torch.tensor([0.5, 0.5])
    expected = float((p * (p / q).log()).sum())
    assert float(forward_divergence(teacher, student, 2)) == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A student and a teacher: both fresh nano models, the teacher with opinions."""
    folders = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(f"model{seed}")
        write_tokenizer(Run("p", model_preset("nano"), ASKED, steps=1), folder)
        model = build_model(model_preset("nano"), seed=seed)
        if seed == 2:
            with torch.no_grad():
                model.lm_head.weight.mul_(8)
        save_model(model, folder, torch.float32)
        folders.append(folder)
    return folders[0], folders[1]


def short(pair: tuple[Path, Path], way: Way, steps: int) -> DistillRun:
    return DistillRun(
        "test", way, model_preset("nano"), *pair, ASKED, steps=steps, batch_tokens=512,
        longest=128, prompts=4, group=2, limit=16, warmup=1, save_every=2,
        optim=OptimConfig(muon=False, adam_lr=4e-3),
    )  # fmt: skip


def logged(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()[1:]
    return [json.loads(line)["divergence"] for line in lines]


@pytest.mark.parametrize("way", ["forward", "on-policy"])
def test_a_student_comes_nearer_and_a_resumed_one_is_the_same(
    pair: tuple[Path, Path], tmp_path: Path, way: Way
) -> None:
    run = short(pair, way, 12)
    train_distill(run, tmp_path / "whole", compiled=False, processes=1)
    train_distill(run, tmp_path / "parts", compiled=False, processes=1, stop_after=5)
    train_distill(run, tmp_path / "parts", compiled=False, processes=1)
    whole, parts = (load_model(tmp_path / f).state_dict() for f in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    found = logged(tmp_path / "whole")
    assert found == logged(tmp_path / "parts") and len(found) == 12
    assert sum(found[-2:]) < 0.85 * sum(found[:2])


def test_other_tokens_are_no_teacher(pair: tuple[Path, Path], tmp_path: Path) -> None:
    save_model(build_model(model_preset("nano"), seed=1), tmp_path, torch.float32)
    build_tokenizer(tmp_path, 400, 512)
    run = short((pair[0], tmp_path), "forward", 1)
    with pytest.raises(ConfigError, match="different tokenizers"):
        train_distill(run, tmp_path / "out", compiled=False, processes=1)
