"""`ingle key`: a fresh API key and the line that admits it."""

from __future__ import annotations

import argparse
import json

from ingle.cli.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print both; nothing is stored, so the key is seen this once."""
    from ingle.server.keys import key_line, new_key

    key = new_key()
    line = key_line(key)
    if args.json:
        print(json.dumps({"key": key, "line": line}))
        return 0
    print(f"Key, for the client (it is shown only now):\n\n  {key}\n")
    print(f"Line for the file of --api-key-file (mode 0600):\n\n  {line}")
    return 0
