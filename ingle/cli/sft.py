"""`ingle sft PRESET`: fine-tune the pre-trained model on chats; the same command resumes it.

With `--data`, `ingle sft MODEL --data FILE.jsonl` fine-tunes any model folder on a file of
conversations, see cli/finetune.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ingle.cli import finetune
from ingle.cli.admitting import add_policy, admission, ask_audit
from ingle.cli.options import add_json
from ingle.cli.sealing import enter
from ingle.cli.training import PRESETS, add_several, add_tasks, given, run_stage, stage_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "preset", metavar="PRESET_OR_MODEL", help=f"{', '.join(PRESETS)}, or with --data a model"
    )
    parser.add_argument("--out", type=Path, help="folder of the run (default out/PRESET-sft)")
    parser.add_argument("--seed", type=int, help="another run of the same recipe")
    parser.add_argument(
        "--stop-after", type=int, metavar="STEP", help="pause there; run again to go on"
    )
    recipe = parser.add_argument_group("a preset")
    recipe.add_argument("--parent", type=Path, help="start from here (default out/PRESET-pretrain)")
    recipe.add_argument("--steps", type=int, help="length of the stage (default: the preset's)")
    add_tasks(recipe)
    recipe.add_argument("--no-compile", action="store_true", help="plain eager PyTorch")
    add_several(parser)
    finetune.add_arguments(parser)
    add_policy(parser)
    add_json(parser)
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    if args.data is not None:
        return finetune.run(args)
    if args.preset not in PRESETS:
        args.usage_error(f"PRESET is one of {', '.join(PRESETS)}; a model needs --data FILE.jsonl")
    folder = args.out or stage_folder(args.preset, "sft", args.tasks)
    start = args.parent or stage_folder(args.preset, "pretrain", args.tasks)
    ask_audit(args, start)
    enter(args, folder, starts="programs", several=True)  # streams, a compiler
    from ingle.models import resolve_model
    from ingle.privacy.admission import admit
    from ingle.privacy.policy import load_policy
    from ingle.training.recipes import sft_run

    parent = resolve_model(start)
    admit(parent, load_policy(args.policy), admission(args)["sealed"])
    return run_stage(args, sft_run(args.preset, parent, **given(args)), folder)
