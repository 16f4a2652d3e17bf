"""Every objective of the GRPO family, from one start, on the same questions.

    python runs/grpo.py --seeds 0           # makes the start: it often answers without a thought
    python runs/presets.py [--steps 24] [--start out/grpo/start]

Two updates a batch of rollouts, so that ratios, clips and masks have something to do. Printed are
means over the last eight steps, in which all presets are asked the same questions; the first three
steps stand above them. One seed and few steps: it shows that all of them learn and what their
numbers look like, not which is best.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingle.cli.grpo import OBJECTIVES
from ingle.training.recipes import grpo_run
from ingle.training.reinforcement.grpo import train_grpo

TASKS = ("sums", "gcd", "base_conversion", "countdown")
LAST = 8
COLUMNS = ("pass@1", "length", "entropy", "kl", "clipped", "drift", "zero_variance", "grad_norm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=Path, default=Path("out/grpo/start"))
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--out", type=Path, default=Path("out/presets"))
    args = parser.parse_args()
    print(f"| Preset | {' | '.join(COLUMNS)} | s a step |\n{'|---' * (len(COLUMNS) + 2)}|")
    for preset in OBJECTIVES:
        run = grpo_run(args.start, preset, args.steps, 0, TASKS, (4,), args.rate)
        folder = args.out / preset
        train_grpo(replace(run, updates=2), folder)
        lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
        rows = [row for row in map(json.loads, lines) if "step" in row]
        if preset == OBJECTIVES[0]:
            print(row_of("first 3 steps", rows[:3]))
        print(row_of(preset, rows[-LAST:]))


def row_of(name: str, rows: list[dict[str, Any]]) -> str:
    means = [sum(row.get(column, 0.0) for row in rows) / len(rows) for column in COLUMNS]
    phases = [key for key in rows[0] if key.startswith("seconds_")]
    seconds = sum(row[key] for row in rows for key in phases) / len(rows)
    return f"| {name} | {' | '.join(f'{mean:.4g}' for mean in means)} | {seconds:.1f} |"


if __name__ == "__main__":
    main()
