"""`--policy` of the verbs that run a model: asked before the model is loaded.

A policy that needs the contents of files is judged by `ingle audit` in a process of its own, which
seals itself; it is started before this process is sealed, because afterwards none can be.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ingle.errors import NotAdmittedError

DEFAULT = "personal"


def add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy", default=DEFAULT, metavar="NAME_OR_FILE",
        help="what may run: personal (the default), workplace, critical-infrastructure, "
        "restricted, or a policy.toml; more than personal asks for an audit first",
    )  # fmt: skip


def ask_audit(args: argparse.Namespace, model: str | Path | None) -> None:
    """Audit a model if the policy needs that; NotAdmittedError unless it may start."""
    if args.policy == DEFAULT:
        return
    from ingle.privacy.policy import load_policy, needs_contents

    policy = load_policy(args.policy)
    if not needs_contents(policy):
        return
    import subprocess

    import msgspec

    from ingle.privacy.admission import raise_unless_admitted
    from ingle.privacy.facts import Audit

    command = [sys.executable, "-P", "-m", "ingle", "audit", f"--policy={args.policy}", "--json"]
    command += ["--unsealed"] if args.unsealed else []
    command += [] if model is None else ["--", str(model)]
    package = str(Path(__file__).resolve().parent.parent.parent)
    done = subprocess.run(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": package}, check=False
    )
    try:
        audit = msgspec.json.decode(done.stdout, type=Audit)
    except msgspec.DecodeError:
        raise NotAdmittedError(
            "The audit that the policy asks for failed; its message is above."
        ) from None
    raise_unless_admitted(audit.verdict, policy.start_undecided)
    for reason in audit.verdict.reasons:
        print(f"ingle: Not decided: {reason.sentence} {reason.file}".rstrip(), file=sys.stderr)


def admission(args: argparse.Namespace) -> dict[str, Any]:
    """The policy, and whether it will be run sealed, as arguments of `loading.load`."""
    return {"policy": args.policy, "sealed": args.own_process and not args.unsealed}
