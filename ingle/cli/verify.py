"""`ingle verify MODEL --key FILE.pub`: do the files, their signature and their statement agree?

Exit codes: 0 everything there is agrees, and with --key that key signed it; 1 anything else.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ingle.cli.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="model folder (default: the shipped reasoner)"
    )
    parser.add_argument(
        "--key", type=Path, action="append", default=[], metavar="FILE",
        help="public key that is trusted; may be given repeatedly",
    )  # fmt: skip
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print every row of evidence; nothing but the digests and the keys decides."""
    import msgspec

    from ingle.engine.progress import progress
    from ingle.models.local import resolve_model
    from ingle.privacy.digests import hash_files
    from ingle.privacy.provenance import provenance
    from ingle.privacy.signing import read_key_file

    keys = [read_key_file(path) for path in args.key]
    folder = resolve_model(args.model)
    with progress("hashed", in_bytes=True) as show:
        files = hash_files(folder, show)
    rows = provenance(folder, files, keys)
    failed = any(row.status == "failed" for row in rows)
    agreed = {row.kind for row in rows if row.status == "verified"}
    good = not failed and ("signature" in agreed if keys else bool(agreed))
    if args.json:
        evidence = [msgspec.to_builtins(row) for row in rows]
        print(json.dumps({"verified": good, "evidence": evidence}, indent=2))
        return 0 if good else 1
    for row in rows:
        place = f"{row.file}: " if row.file else ""
        print(f"{row.status:<9}{row.kind:<14}{place}{row.sentence}")
    if not good:
        why = "Something contradicts the files." if failed else "Nothing proves what was asked."
        print(f"ingle: Not verified. {why}", file=sys.stderr)
    return 0 if good else 1
