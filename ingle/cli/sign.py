"""`ingle sign MODEL --key FILE`: sign a folder with a key of one's own; `--new-key` makes one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ingle.cli.options import add_json
from ingle.cli.sealing import enter
from ingle.errors import SigningError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", type=Path, metavar="FOLDER", help="folder to sign")
    parser.add_argument("--key", type=Path, metavar="FILE", help="private key that signs")
    parser.add_argument(
        "--new-key", type=Path, metavar="FILE", help="make a key: FILE (0600) and FILE.pub"
    )
    parser.add_argument(
        "--kind", choices=("ed25519", "p256"), default="ed25519",
        help="of the new key; model_signing reads p256 only (default: %(default)s)",
    )  # fmt: skip
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Make the key, if one is asked for, then sign with it or with the one given."""
    key = args.key or args.new_key
    if key is None or (args.key and args.new_key) or (args.model is None and args.key):
        raise SigningError("Say FOLDER --key FILE to sign, or --new-key FILE [FOLDER].")
    if args.model is not None and not args.model.is_dir():
        raise SigningError("There is no such folder to sign.")
    from ingle.privacy.signing import key_hint, new_key, read_private_key, sign_folder

    made = args.new_key.parent if args.new_key else None
    enter(args, *(folder for folder in (made, args.model) if folder is not None))
    facts: dict[str, str] = {}
    if args.new_key:
        facts["public_key"] = str(new_key(args.new_key, args.kind))
    if args.model is not None:
        facts["signature"] = str(sign_folder(args.model, key))
    facts["key"] = key_hint(read_private_key(key).public_key())
    if args.json:
        print(json.dumps(facts))
        return 0
    if args.new_key:
        print(f"{args.new_key} is the private key; keep it. {facts['public_key']} is for others.")
    if args.model is not None:
        print(f"{facts['signature']} signs every file of the folder with the key {facts['key']}.")
    return 0
