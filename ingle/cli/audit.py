"""`ingle audit [MODEL]`: what a model folder holds, and whether a policy admits it.

`ingle audit behaviour` is a verb of its own; a folder of that name is `./behaviour`.

Exit codes: 0 admitted, 1 refused (or failed), 2 not decided (or wrong usage).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingle.privacy.facts import Audit

_CODES = {"admitted": 0, "refused": 1, "undecided": 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL",
        help="model folder or cached id (default: the shipped reasoner)",
    )  # fmt: skip
    parser.add_argument(
        "--policy", default="personal", metavar="NAME_OR_FILE",
        help="personal, workplace, critical-infrastructure, restricted, or a policy.toml",
    )  # fmt: skip
    parser.add_argument(
        "--behaviour", type=Path, metavar="FILE",
        help="a report of `ingle audit behaviour --json`, for policies that ask for one",
    )  # fmt: skip
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--html", action="store_true", help="print the report as one web page")
    form.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> int:
    """Print the report; the folder is looked at as it is, links and pipes and all."""
    import msgspec

    from ingle.privacy.audit import audit
    from ingle.privacy.policy import load_policy

    policy = load_policy(args.policy)
    progress = _progress if sys.stderr.isatty() else None
    found = audit(_folder(args.model), policy, progress, args.behaviour)
    if args.html:
        from ingle.privacy.audit_html import html_page

        print(html_page(found), end="")
    elif args.json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
    else:
        _print(found)
    return _CODES[found.verdict.decision]


def _folder(model: str | None) -> Path:
    """The folder of a model; unlike `resolve_model`, also one whose files lead out of it."""
    from ingle.models.local import cached_models, resolve_model

    if model is not None:
        folder = Path(model).expanduser()
        if folder.is_dir():
            return folder
        for cached in cached_models():
            if cached.name == model:
                return cached.folder
    return resolve_model(model)


def _print(found: Audit) -> None:
    from ingle.cli.terminal import BOLD, Styled
    from ingle.privacy.audit_report import text_lines

    out = Styled(sys.stdout)
    for line, heading in text_lines(found):
        out.line(line, BOLD if heading else "")


def _progress(done: int, total: int) -> None:
    share = f"{done / total:4.0%}" if total else ""
    print(f"\r{share} of {total / 1e9:.1f} GB", end="\n" if done >= total else "", file=sys.stderr)
