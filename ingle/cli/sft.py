"""`ingle sft PRESET`: fine-tune the pre-trained model on chats; the same command resumes it."""

from __future__ import annotations

import argparse
from pathlib import Path

from ingle.cli.training import add_run_arguments, given, run_stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, "sft")
    parser.add_argument("--parent", type=Path, help="start from here (default out/PRESET-pretrain)")


def run(args: argparse.Namespace) -> int:
    from ingle.models import resolve_model
    from ingle.training.recipes import sft_run

    parent = resolve_model(args.parent or Path("out") / f"{args.preset}-pretrain")
    folder = args.out or Path("out") / f"{args.preset}-sft"
    return run_stage(args, sft_run(args.preset, parent, **given(args)), folder)
