"""`ingle grpo [START]`: reinforcement learning; the same command resumes it."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.cli.admitting import add_policy, admission, ask_audit
from ingle.cli.options import add_json
from ingle.cli.sealing import enter
from ingle.cli.training import PRESETS, add_several, divided, levels_of
from ingle.errors import ConfigError
from ingle.parallel.environment import leads

if TYPE_CHECKING:
    from ingle.training.reinforcement.run import GrpoRun

OBJECTIVES = ("small", "grpo", "dr_grpo", "dapo", "gspo", "cispo", "v32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "start", nargs="?",
        help="nano, mini or tiny: what `ingle sft` left in out/; or a model folder; or a Python "
        "file with a function run() that returns a GrpoRun (default: the shipped reasoner)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="folder of the run (default out/OBJECTIVE)")
    parser.add_argument("--objective", choices=OBJECTIVES, default="small")
    parser.add_argument(
        "--task", action="append",
        help="only this task; may be repeated; `all`: every one that is ever trained (default: six "
        "of those that a model from nothing learns first)",
    )  # fmt: skip
    parser.add_argument("--levels", help="for example 4,5 (default)")
    parser.add_argument("--rate", type=float, help="peak learning rate of AdamW")
    parser.add_argument(
        "--quant", choices=("int8", "int4", "fp8"),
        help="rollouts from a copy of the weights rounded to this; what is trained stays fp32, and "
        "each token's experts are those that the copy chose",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, help="length of the run")
    parser.add_argument("--seed", type=int, help="another run of the same recipe")
    parser.add_argument(
        "--stop-after", type=int, metavar="STEP", help="pause there; run again to go on"
    )
    parser.add_argument("--no-compile", action="store_true", help="plain eager PyTorch")
    add_several(parser)
    add_policy(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    folder = args.out or Path("out") / f"grpo-{args.objective}"
    start = Path("out") / f"{args.start}-sft" if args.start in PRESETS else args.start
    from_file = str(start).endswith(".py")
    if not from_file:
        ask_audit(args, start)
    enter(args, folder, starts="programs", several=True)  # streams, a compiler
    from ingle.models import resolve_model
    from ingle.privacy.admission import admit
    from ingle.privacy.policy import load_policy
    from ingle.training.reinforcement.grpo import train_grpo

    chosen = _read(Path(start)) if from_file else _recipe(args, resolve_model(start))
    admit(chosen.parent, load_policy(args.policy), admission(args)["sealed"])
    train_grpo(
        divided(args, chosen), folder, compiled=not args.no_compile, stop_after=args.stop_after,
        expert_parallel=args.expert_parallel,
    )  # fmt: skip
    if not leads():
        return 0
    if args.json:
        print(json.dumps({"run": chosen.name, "folder": str(folder), "steps": chosen.steps}))
    else:
        print(f"{folder} holds the model, {folder / 'best'} the best checkpoint; open "
              f"{folder / 'report.html'} for curves and samples.")  # fmt: skip
    return 0


def _recipe(args: argparse.Namespace, parent: Path) -> GrpoRun:
    from ingle.tasks import TRAINED
    from ingle.training.recipes import grpo_run

    options = {
        "steps": args.steps, "seed": args.seed, "rate": args.rate,
        "tasks": TRAINED if args.task == ["all"] else args.task,
        "levels": levels_of(args.levels),
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    return replace(grpo_run(parent, args.objective, **given), quant=args.quant or "")


def _read(path: Path) -> GrpoRun:
    """The run that a file of the user's own describes; it is executed, under the seal."""
    from runpy import run_path

    from ingle.training.reinforcement.run import GrpoRun

    if not path.is_file():
        raise ConfigError(f"No file {path.name!r}.")
    make = run_path(str(path)).get("run")
    found = make() if callable(make) else None
    if not isinstance(found, GrpoRun):
        raise ConfigError(f"{path.name} needs a function run() that returns a GrpoRun.")
    return found
