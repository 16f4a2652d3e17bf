"""`ingle audit behaviour [MODEL]`: what a model does with our probes, as differences and rates.

A measurement, not a verdict: the exit code is 0 whatever was found.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import Any

from ingle.errors import InvalidRequestError

PARTS = ("pairs", "code", "thinking", "tools", "trigger")
MOST_SAMPLES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ingle.cli.options import add_json, add_model

    add_model(parser)
    parser.add_argument("--quick", action="store_true", help="a quarter of the probes, once each")
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="only this part; may be repeated"
    )
    parser.add_argument(
        "--compare", metavar="OTHER_MODEL", help="the same probes for this one, too"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--samples", type=int, metavar="K", help="answers to each coding task")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="of one answer")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the report of one model, or of one and how another compares."""
    settings = _settings(args)
    report = _audit(args.model, args, settings)
    if args.compare is not None:
        from ingle.privacy.behaviour.comparison import compare

        other = _audit(args.compare, args, settings)
        report |= {"comparison": compare(report, other), "other": other}
    if args.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        from ingle.privacy.behaviour.text import render

        print(render(report), end="")
    return 0


def _settings(args: argparse.Namespace) -> Any:
    from ingle.privacy.behaviour.report import Settings, quick

    for name, least in (("samples", 1), ("max_tokens", 1), ("seed", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise InvalidRequestError(f"{name} must be at least {least}.", name)
    if (args.samples or 1) > MOST_SAMPLES:
        raise InvalidRequestError(f"samples must be at most {MOST_SAMPLES}.", "samples")
    parts = tuple(part for part in PARTS if not args.part or part in args.part)
    settings = quick(args.seed, parts) if args.quick else Settings(seed=args.seed, parts=parts)
    given = {"samples": args.samples, "tokens": args.max_tokens}
    return replace(settings, **{name: value for name, value in given.items() if value is not None})


def _audit(model: str | None, args: argparse.Namespace, settings: Any) -> dict[str, Any]:
    from ingle.cli.options import weights_options
    from ingle.engine.llm import LLM
    from ingle.models.local import resolve_model
    from ingle.privacy.behaviour.report import audit
    from ingle.privacy.behaviour.subject import ModelSubject
    from ingle.privacy.digests import hash_files
    from ingle.privacy.facts import manifest_digest

    # drafts are taken by the clock; without them a model's batches are the same on every run
    llm = LLM(model, **weights_options(args), max_sequences=32, speculative="off")
    report = audit(ModelSubject(llm, settings.seed), settings, _say)
    # by which `ingle audit --behaviour` knows that the report is of these very files
    return report | {"digest": manifest_digest(hash_files(resolve_model(model)))}


def _say(line: str) -> None:
    if sys.stderr.isatty():
        print(line, file=sys.stderr)
