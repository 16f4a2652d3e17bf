"""What tests of many processes share: how they are started, what they run, how it is compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from ingle.training.data import Mixture
from ingle.training.loop import Run
from ingle.training.presets import model_preset
from ingle.training.recipes import FIRST_WEIGHTS
from ingle.weights.safetensors import read_tensors

HERE = Path(__file__).parent
RUN = Run(
    "test", model_preset("nano"), Mixture(FIRST_WEIGHTS, chat=False), steps=4, batch_tokens=1200,
    streams=2, longest=288, warmup=2, decay=0.5, save_every=2,
)  # fmt: skip


def command(processes: int, *arguments: str | Path) -> list[str]:
    """Start a program (a script, or `-m` and a module) in so many processes on this machine."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", str(processes), *map(str, arguments),
    ]  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"} | more


def torchrun(processes: int, *arguments: str | Path, **more: str) -> str:
    """Run a program in many processes to its end; returns what they printed. AssertionError with
    that where one of them fails."""
    found = subprocess.run(
        command(processes, *arguments), env=environment(**more), capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout + found.stderr


def logged(folder: Path) -> list[dict]:
    entries = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines()[1:])
    return [{k: v for k, v in e.items() if not k.startswith("seconds")} for e in entries]


def checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    """Weights and optimiser state."""
    found: dict[str, torch.Tensor] = {}
    for file in ("model.safetensors", "training.safetensors"):
        found |= dict(read_tensors(folder / file))
    return found


def strayed(start: Path, one: Path, other: Path) -> float:
    """How far two runs from one start ended apart, by how far they went; all tensors together.

    An optimiser that makes steps equally long turns a gradient that is nothing but rounding into a
    step like any other: single numbers may differ by it.
    """
    begun, first, second = (
        {name: tensor.float() for name, tensor in read_tensors(folder / "model.safetensors")}
        for folder in (start, one, other)
    )
    apart = sum(float((second[name] - value).square().sum()) for name, value in first.items())
    moved = sum(float((begun[name] - value).square().sum()) for name, value in first.items())
    return (apart / moved) ** 0.5


def differences(one: Path, other: Path) -> dict[str, float]:
    """Of every tensor of two checkpoints: the largest difference by the largest number."""
    first, second = checkpoint(one), checkpoint(other)
    assert first.keys() == second.keys()
    return {
        name: float((a.float() - second[name].float()).abs().max() / a.float().abs().max().clamp(
            min=1e-30)) for name, a in first.items()
    }  # fmt: skip
