"""`ingle train PRESET`: pre-train a model from nothing; the same command resumes it."""

from __future__ import annotations

import argparse

from ingle.cli.sealing import enter
from ingle.cli.training import add_run_arguments, given, run_stage, stage_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, "pretrain")


def run(args: argparse.Namespace) -> int:
    folder = args.out or stage_folder(args.preset, "pretrain", args.tasks)
    enter(args, folder, starts="programs", several=True)  # streams, a compiler
    from ingle.training.recipes import pretrain_run

    return run_stage(args, pretrain_run(args.preset, **given(args)), folder)
