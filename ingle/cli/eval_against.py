"""Who `ingle eval` measures: a model, and with `--against` the one it came from, too."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.cli.options import weights_options
from ingle.cli.subject import subject
from ingle.errors import InvalidRequestError

if TYPE_CHECKING:
    from ingle.training.evaluation.asking import Ask, Asking
    from ingle.training.evaluation.evaluate import Evaluation, Exam

PARENT = "parent"  # stands for the folder that MODEL's run started from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("before and after")
    group.add_argument(
        "--against", metavar="FOLDER",
        help="ask this model the same problems and compare; 'parent' is the one that MODEL's run "
        "started from (the one under --adapter is it, too)",
    )  # fmt: skip
    group.add_argument(
        "--record", action="store_true",
        help="keep the result in MODEL's folder (or the adapter's): evaluation.json, the tables in "
        "report.html, and the model card README.md",
    )  # fmt: skip


def record_folder(args: argparse.Namespace) -> Path | None:
    """The folder that --record writes into, None without; asked before the process is sealed."""
    if not args.record:
        return None
    named = args.adapter or args.model
    if args.endpoint is not None or named is None or not Path(named).is_dir():
        raise InvalidRequestError(
            "--record keeps the result in the folder of a run: name that folder as MODEL.", "record"
        )
    return Path(named)


def parent_folder(args: argparse.Namespace) -> Path | None:
    """The model to compare with, None without --against. Raises ModelNotFoundError, ConfigError."""
    if args.against is None:
        return None
    if args.endpoint is not None:
        raise InvalidRequestError(
            "--against compares models of this machine; --endpoint is none.", "against"
        )
    from ingle.models import resolve_model
    from ingle.training.report.history import parent_of

    if args.against == PARENT:
        return parent_of(_own_folder(args))
    return resolve_model(args.against)


def measure(
    args: argparse.Namespace, exams: Sequence[Exam], asking: Asking, parent: Path | None = None
) -> tuple[Evaluation, dict[str, Any]]:
    """Ask the model, or its parent, and what is told of it as JSON values.

    Where it is to be recorded or compared it is called by its folder's last name, as what a folder
    holds names no place on a disk, and by the SHA-256 of its weights.
    """
    from ingle.training.evaluation.evaluate import examine

    started = time.perf_counter()
    ask, drafts = _who(args, parent)
    found = examine(ask, exams, asking)
    seconds = time.perf_counter() - started
    told: dict[str, Any] = {"model": args.endpoint_model or args.model or "reasoner"}
    if args.against is not None or args.record:
        told = _identity(parent or _own_folder(args))
    return found, told | {
        "endpoint": args.endpoint,
        "quant": None if args.endpoint else args.quant,
        "seed": asking.seed,
        "asked": {
            "samples": asking.samples,
            "temperature": asking.temperature,
            "max_tokens": asking.max_tokens,
            "system": asking.system,
            "thinking": asking.thinking,
        },
        "seconds": round(seconds, 1),
        "acceptance": drafts(),
        **found.as_json(),
        "mistakes": [
            {"task": p.task, "level": p.level, "question": p.question, "answer": text, "why": why}
            for p, text, why in found.mistakes[: args.mistakes]
        ],
    }


def _who(args: argparse.Namespace, parent: Path | None) -> tuple[Ask, Any]:
    """Who answers, and a function that says how many of its MTP module's drafts held."""
    if args.endpoint or args.endpoint_model or args.key_file:
        return subject(args), lambda: None
    from ingle.engine.llm import LLM
    from ingle.training.evaluation.asking import ask_model

    options = weights_options(args)
    if parent is not None:
        options["adapter"] = None
    llm = LLM(args.model if parent is None else parent, **options, max_sequences=32)
    return ask_model(llm), lambda: [round(a, 4) for a in llm.engine.stats().acceptance]


def _own_folder(args: argparse.Namespace) -> Path:
    from ingle.models import resolve_model

    return args.adapter or resolve_model(args.model)


def _identity(folder: Path) -> dict[str, Any]:
    from ingle.privacy.digests import file_digest
    from ingle.training.report.history import WEIGHTS

    weights = folder / WEIGHTS
    digest = file_digest(weights) if weights.is_file() else None
    return {"model": folder.resolve().name, "sha256": digest}
