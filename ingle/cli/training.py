"""What `ingle train` and `ingle sft` share."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ingle.cli.options import add_json
from ingle.errors import InvalidRequestError
from ingle.parallel.environment import leads

if TYPE_CHECKING:
    from ingle.training.distill import DistillRun
    from ingle.training.finetuning.finetune import FineTuning
    from ingle.training.loop import Run
    from ingle.training.reinforcement.run import GrpoRun

R = TypeVar("R", "Run", "GrpoRun", "DistillRun", "FineTuning")
PRESETS = ("nano", "mini", "tiny")
TASKS = ("first", "trained")


def add_run_arguments(parser: argparse.ArgumentParser, stage: str) -> None:
    parser.add_argument("preset", choices=PRESETS, help="size of the model")
    parser.add_argument("--out", type=Path, help=f"folder of the run (default out/PRESET-{stage})")
    add_tasks(parser)
    parser.add_argument("--steps", type=int, help="length of the stage (default: the preset's)")
    parser.add_argument("--seed", type=int, help="another run of the same recipe")
    parser.add_argument(
        "--stop-after", type=int, metavar="STEP", help="pause there; run again to go on"
    )
    parser.add_argument("--no-compile", action="store_true", help="plain eager PyTorch")
    add_several(parser)
    add_json(parser)


def add_tasks(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--tasks", choices=TASKS,
        help="what is learned: first, the eight that a model from nothing begins with (default), "
        "or trained, all that are ever trained; the folder is then out/PRESET-trained-STAGE",
    )  # fmt: skip


def add_several(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("many processes (torchrun -m ingle ...)")
    group.add_argument(
        "--streams", type=int, metavar="N",
        help="parts that a step is cut into: a multiple of the processes (default 2)",
    )  # fmt: skip
    group.add_argument(
        "--expert-parallel", type=int, default=1, metavar="N",
        help="so many processes share the experts of a layer",
    )  # fmt: skip
    group.add_argument(
        "--precision", choices=("fp32", "bf16"),
        help="of products; weights, their updates and sums over processes are fp32",
    )  # fmt: skip


def divided(args: argparse.Namespace, run: R) -> R:
    """The run with the options of `add_several`."""
    options = {"streams": args.streams, "precision": args.precision}
    return replace(run, **{name: value for name, value in options.items() if value is not None})


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The options that change a recipe."""
    options = {"steps": args.steps, "seed": args.seed, "tasks": args.tasks}
    return {name: value for name, value in options.items() if value is not None}


def stage_folder(preset: str, stage: str, tasks: str | None) -> Path:
    """Where a stage lies if nothing else is said: by the name that `recipes.stage_name` gives its
    run, told here because nothing heavy is imported before the process is sealed."""
    named = f"{tasks}-" if tasks not in (None, "first") else ""
    return Path("out") / f"{preset}-{named}{stage}"


def run_stage(args: argparse.Namespace, run: Run, folder: Path) -> int:
    from ingle.training.loop import train

    say_lost(run, folder)
    train(
        divided(args, run), folder, compiled=not args.no_compile, stop_after=args.stop_after,
        expert_parallel=args.expert_parallel,
    )  # fmt: skip
    if not leads():
        return 0
    if args.json:
        print(json.dumps({"run": run.name, "folder": str(folder), "steps": run.steps}))
    else:
        print(f"{folder} holds the model; open {folder / 'report.html'} for the curves.")
    return 0


def say_lost(run: Run, folder: Path) -> None:
    """Which tasks lose documents that are too long, on stderr; ConfigError where one loses many."""
    from ingle.prompt.tokenizer import Tokenizer
    from ingle.training.data import Mixture, check_lengths
    from ingle.training.opening import write_tokenizer

    if not isinstance(run.mixture, Mixture) or not leads():
        return
    write_tokenizer(run, folder)
    lost = check_lengths(run.mixture, Tokenizer.load(folder), run.longest)
    if lost:
        named = ", ".join(
            f"{task} level {level} {100 * share:.0f} %"
            for task, levels in lost.items()
            for level, share in levels.items()
        )
        print(f"Documents of more than {run.longest} tokens are skipped: {named}", file=sys.stderr)


def levels_of(text: str | None) -> tuple[int, ...] | None:
    """Levels from `1,2,3`; None where none were named."""
    if text is None:
        return None
    levels = tuple(int(part) if part.strip().isdigit() else 0 for part in text.split(","))
    if not all(1 <= level <= 5 for level in levels):
        raise InvalidRequestError("--levels takes numbers from 1 to 5, such as 1,2,3.", "levels")
    return levels
