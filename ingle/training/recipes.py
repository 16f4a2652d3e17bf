"""The two stages of the shipped reasoner, as functions that return a full `Run`.

Stage lengths are in steps of 8,192 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ingle.training.data import Mixture
from ingle.training.loop import Run
from ingle.training.optim import OptimConfig
from ingle.training.presets import model_preset

# Drawn more often where a small model errs more: long traces and searches.
TASK_WEIGHTS = {
    "sums": 1.1,
    "products": 0.7,
    "gcd": 1.3,
    "base_conversion": 1.5,
    "sorting": 1.7,
    "spell_backward": 0.8,
    "letter_counting": 0.8,
    "countdown": 3.0,
    "chat": 0.3,
}


@dataclass(frozen=True)
class Stage:
    """Steps of both stages and the peak rates of a preset."""

    pretrain_steps: int
    sft_steps: int
    optim: OptimConfig


_STAGES = {
    "nano": Stage(300, 600, OptimConfig(muon_lr=0.02, adam_lr=4e-3)),
    "mini": Stage(600, 5400, OptimConfig(muon_lr=0.02, adam_lr=3e-3)),
    "tiny": Stage(1250, 3000, OptimConfig(muon_lr=0.01, adam_lr=2e-3)),
}


def pretrain_run(preset: str, steps: int | None = None, seed: int = 0) -> Run:
    """Worked examples as plain text, loss on every token, constant rate after the warm-up."""
    config = model_preset(preset)
    stage = _STAGES[preset]
    return Run(
        name=f"{preset}-pretrain", model=config, mixture=Mixture(TASK_WEIGHTS, chat=False),
        steps=steps or stage.pretrain_steps, optim=stage.optim, seed=seed,
        warmup=50, mtp_weight=0.3,
    )  # fmt: skip


def sft_run(preset: str, parent: Path, steps: int | None = None, seed: int = 1) -> Run:
    """Chats in the serving format, loss on the last answer, rate decaying to zero throughout.

    The long decay is where accuracy comes from: see docs/log.md.
    """
    config = model_preset(preset)
    stage = _STAGES[preset]
    return Run(
        name=f"{preset}-sft", model=config, mixture=Mixture(TASK_WEIGHTS, chat=True, history=0.08),
        steps=steps or stage.sft_steps, optim=stage.optim, seed=seed, parent=parent,
        warmup=20, decay=0.9, mtp_weight=0.2, bias_freeze=0.1,
    )  # fmt: skip
