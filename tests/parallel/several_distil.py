"""What each of two processes does in test_parallel_distill.py: `several_distil.py PARENT TEACHER
FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from test_parallel_distill import WAYS, run_of

from ingle.training.distill import train_distill

if __name__ == "__main__":
    torch.set_num_threads(1)
    parent, teacher, folder = map(Path, sys.argv[1:])
    for way, experts in WAYS.items():
        train_distill(run_of(parent, teacher, way), folder / way, compiled=False,
                      expert_parallel=experts)  # fmt: skip
