"""Reinforcement learning in two processes asks, answers and learns what one does."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from launch import HERE, differences, logged, torchrun

sys.path.insert(0, str(HERE.parent / "training" / "reinforcement"))

from ingle.models import build_model, save_model
from ingle.training.loop import Run
from ingle.training.opening import write_tokenizer
from ingle.training.presets import model_preset
from ingle.training.reinforcement.grpo import train_grpo
from ingle.training.reinforcement.run import GrpoRun

SCRIPT = Path(__file__).parent / "several_ask.py"


def run_of(parent: Path, name: str) -> GrpoRun:
    """Three questions: one process asks two of them, the other one."""
    from test_grpo import short

    run = short(parent, name, reset=2 if name == "grpo" else 0)
    return replace(run, updates=2 if name == "gspo" else 1)


@pytest.mark.slow
def test_two_processes_answer_and_learn_as_one(tmp_path: Path) -> None:
    from test_grpo import ASKED, pretend

    parent = tmp_path / "parent"
    write_tokenizer(Run("p", model_preset("nano"), ASKED, steps=1), parent)
    save_model(build_model(model_preset("nano"), seed=5), parent, torch.float32)
    torchrun(2, SCRIPT, parent, tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        pretend(lambda *where: patch.setattr(*where, raising=False))
        for name in ("small", "grpo", "gspo"):
            train_grpo(run_of(parent, name), tmp_path / "one" / name, compiled=False, processes=1)
    torch.set_num_threads(threads)
    for name in ("small", "grpo", "gspo"):
        one, two = tmp_path / "one" / name, tmp_path / "two" / name
        samples = [(folder / "samples.jsonl").read_text("utf-8") for folder in (one, two)]
        assert samples[0] and samples[0] == samples[1]
        for mine, theirs in zip(logged(one), logged(two), strict=True):
            assert mine.keys() == theirs.keys()
            for key, value in mine.items():
                assert theirs[key] == pytest.approx(value, rel=1e-5, abs=2e-6), key
        assert any("policy" in entry for entry in logged(one))
        assert max(differences(one, two).values()) < 2e-5
        assert (two / "best" / "model.safetensors").is_file()
        assert (two / "reference" / "model.safetensors").is_file() is (name == "grpo")
