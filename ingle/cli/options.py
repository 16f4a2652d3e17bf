"""Options that several verbs share."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.errors import InvalidRequestError

if TYPE_CHECKING:
    from ingle.engine.request import SamplingParams

QUANTS = ("auto", "int4", "int8", "fp8", "bf16", "fp32")
SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "seed")


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="model folder (default: the shipped reasoner)"
    )
    add_quant(parser)


def add_quant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quant", choices=QUANTS, default="auto", help="weights in memory")
    parser.add_argument(
        "--keep-quantised", action="store_true",
        help="keep quantised weights on disk, too, for a quick second start",
    )  # fmt: skip
    parser.add_argument(
        "--expert-memory", type=float, metavar="GB",
        help="leave experts on disk but for this much (default: only if memory is too small)",
    )  # fmt: skip
    parser.add_argument(
        "--calibrate", type=Path, metavar="FILE",
        help="text of the kind you will ask about: int4 rounds for it (loads the model twice)",
    )  # fmt: skip
    parser.add_argument(
        "--adapter", type=Path, metavar="FOLDER", help="LoRA that is added to the weights"
    )


def weights_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_quant` as arguments of `LLM`."""
    memory = args.expert_memory
    if args.calibrate is not None and not args.calibrate.is_file():
        raise InvalidRequestError(f"There is no text file {args.calibrate} to calibrate with.")
    return {
        "quant": args.quant,
        "keep_quantised": args.keep_quantised,
        "expert_bytes": None if memory is None else int(memory * 1e9),
        "calibration": args.calibrate and args.calibrate.read_text("utf-8", errors="replace"),
        "adapter": args.adapter,
    }


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def add_unsealed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--unsealed",
        action="store_true",
        help="run without the seal: whatever code gets to run could open connections",
    )


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Unset options take the model's own defaults."""
    group = parser.add_argument_group("sampling (default: what the model's files say)")
    group.add_argument("--max-tokens", type=int, metavar="N")
    group.add_argument("--temperature", type=float, metavar="T", help="0 is greedy")
    group.add_argument("--top-p", type=float, metavar="P")
    group.add_argument("--top-k", type=int, metavar="K")
    group.add_argument("--min-p", type=float, metavar="P")
    group.add_argument("--seed", type=int, metavar="N")
    group.add_argument("--stop", action="append", metavar="TEXT", help="may be given repeatedly")


def sampling(args: argparse.Namespace, defaults: SamplingParams) -> SamplingParams:
    """The given options over the model's defaults; raises InvalidRequestError out of range."""
    given = {name: value for name in SAMPLING if (value := getattr(args, name)) is not None}
    if args.stop:
        given["stop"] = tuple(args.stop)
    return replace(defaults, **given)
