"""`ingle merge MODEL ADAPTER --out FOLDER`: fold a LoRA adapter into a copy of its base."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ingle.cli.options import add_json
from ingle.cli.sealing import enter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder of the base model")
    parser.add_argument(
        "adapter", type=Path, metavar="ADAPTER", help="folder with adapter_config.json"
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder for the merged model")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    enter(args, args.out)
    from ingle.engine.progress import progress
    from ingle.models import resolve_model
    from ingle.training.finetuning.merge import merge_adapter

    with progress(f"merging into {args.out.name}") as show:
        merge_adapter(resolve_model(args.model), args.adapter, args.out, show)
    print(json.dumps({"folder": str(args.out)}) if args.json else f"{args.out} holds the model.")
    return 0
