"""What `ingle train` and `ingle sft` share."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.cli.options import add_json
from ingle.errors import InvalidRequestError

if TYPE_CHECKING:
    from ingle.training.loop import Run

PRESETS = ("nano", "mini", "tiny")


def add_run_arguments(parser: argparse.ArgumentParser, stage: str) -> None:
    parser.add_argument("preset", choices=PRESETS, help="size of the model")
    parser.add_argument("--out", type=Path, help=f"folder of the run (default out/PRESET-{stage})")
    parser.add_argument("--steps", type=int, help="length of the stage (default: the preset's)")
    parser.add_argument("--seed", type=int, help="another run of the same recipe")
    parser.add_argument(
        "--stop-after", type=int, metavar="STEP", help="pause there; run again to go on"
    )
    parser.add_argument("--no-compile", action="store_true", help="plain eager PyTorch")
    add_json(parser)


def given(args: argparse.Namespace) -> dict[str, int]:
    """The options that change a recipe."""
    options = {"steps": args.steps, "seed": args.seed}
    return {name: value for name, value in options.items() if value is not None}


def run_stage(args: argparse.Namespace, run: Run, folder: Path) -> int:
    from ingle.training.loop import train

    train(run, folder, compiled=not args.no_compile, stop_after=args.stop_after)
    if args.json:
        print(json.dumps({"run": run.name, "folder": str(folder), "steps": run.steps}))
    else:
        print(f"{folder} holds the model; open {folder / 'report.html'} for the curves.")
    return 0


def levels_of(text: str | None) -> tuple[int, ...] | None:
    """Levels from `1,2,3`; None where none were named."""
    if text is None:
        return None
    levels = tuple(int(part) if part.strip().isdigit() else 0 for part in text.split(","))
    if not all(1 <= level <= 5 for level in levels):
        raise InvalidRequestError("--levels takes numbers from 1 to 5, such as 1,2,3.", "levels")
    return levels
