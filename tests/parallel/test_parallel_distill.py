"""Two processes distil as one does, from given text and from the student's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from launch import HERE, logged, strayed, torchrun

from ingle.models import build_model, save_model
from ingle.training.data import Mixture
from ingle.training.distill import DistillRun, Way, train_distill
from ingle.training.loop import Run
from ingle.training.opening import write_tokenizer
from ingle.training.optim import OptimConfig
from ingle.training.presets import model_preset

ASKED = Mixture({"sums": 1.0}, chat=True, levels=(1,))
WAYS: dict[Way, int] = {"forward": 1, "on-policy": 2}  # and how many processes share experts


def run_of(parent: Path, teacher: Path, way: Way) -> DistillRun:
    return DistillRun(
        "test", way, model_preset("nano"), parent, teacher, ASKED, steps=3, batch_tokens=512,
        longest=128, prompts=3, group=2, limit=16, warmup=1,
        optim=OptimConfig(muon=False, adam_lr=4e-3),
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_distil_as_one(tmp_path: Path) -> None:
    folders = [tmp_path / "parent", tmp_path / "teacher"]
    for seed, folder in enumerate(folders):
        write_tokenizer(Run("p", model_preset("nano"), ASKED, steps=1), folder)
        save_model(build_model(model_preset("nano"), seed=seed), folder, torch.float32)
    torchrun(2, HERE / "several_distil.py", *folders, tmp_path / "two")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for way in WAYS:
        train_distill(run_of(folders[0], folders[1], way), tmp_path / "one" / way, compiled=False,
                      processes=1)  # fmt: skip
    torch.set_num_threads(threads)
    for way in WAYS:
        one, two = logged(tmp_path / "one" / way), logged(tmp_path / "two" / way)
        assert [entry["trained_tokens"] for entry in one] == [e["trained_tokens"] for e in two]
        for mine, theirs in zip(one, two, strict=True):
            assert mine["divergence"] > 0
            assert theirs["divergence"] == pytest.approx(mine["divergence"], abs=2e-6)
        assert strayed(folders[0], tmp_path / "one" / way, tmp_path / "two" / way) < 0.01
