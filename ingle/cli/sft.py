"""`ingle sft PRESET`: fine-tune the pre-trained model on chats; the same command resumes it."""

from __future__ import annotations

import argparse
from pathlib import Path

from ingle.cli.admitting import add_policy, admission, ask_audit
from ingle.cli.sealing import enter
from ingle.cli.training import add_run_arguments, given, run_stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, "sft")
    parser.add_argument("--parent", type=Path, help="start from here (default out/PRESET-pretrain)")
    add_policy(parser)


def run(args: argparse.Namespace) -> int:
    folder = args.out or Path("out") / f"{args.preset}-sft"
    start = args.parent or Path("out") / f"{args.preset}-pretrain"
    ask_audit(args, start)
    enter(args, folder, starts="programs")  # a process for each stream, and a compiler
    from ingle.models import resolve_model
    from ingle.privacy.admission import admit
    from ingle.privacy.policy import load_policy
    from ingle.training.recipes import sft_run

    parent = resolve_model(start)
    admit(parent, load_policy(args.policy), admission(args)["sealed"])
    return run_stage(args, sft_run(args.preset, parent, **given(args)), folder)
