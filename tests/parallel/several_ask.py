"""What each of two processes does in test_parallel_grpo.py: `several_ask.py PARENT FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from test_parallel_grpo import run_of

from ingle.training.reinforcement.grpo import train_grpo

if __name__ == "__main__":
    from test_grpo import pretend

    torch.set_num_threads(1)
    pretend(setattr)
    parent, folder = Path(sys.argv[1]), Path(sys.argv[2])
    for name, experts in (("small", 1), ("grpo", 2), ("gspo", 1)):
        train_grpo(run_of(parent, name), folder / "two" / name, compiled=False,
                   expert_parallel=experts)  # fmt: skip
