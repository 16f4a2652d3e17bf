"""`ingle pull ID`: download a model into the Hugging Face cache, with a receipt of each request."""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ingle.cli.options import add_json
from ingle.errors import IngleError, ModelNotFoundError

if TYPE_CHECKING:
    from ingle.hub.client import Hub
    from ingle.hub.pull import Plan
    from ingle.hub.receipt import Receipt

_MOST_WORKERS = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repo", type=_repo, metavar="ID", help="owner/name on the hub")
    parser.add_argument(
        "--revision", type=_revision, default="main", help="branch, tag or commit (default: main)"
    )
    parser.add_argument(
        "--workers", type=_workers, default=8, metavar="N", help="files at a time (default: 8)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="list files and sizes; fetch no file"
    )
    add_json(parser)
    parser.epilog = (
        "Fetches *.safetensors, *.json, tokenizer files, *.md, LICENSE* and *.txt of the top "
        "folder; never code, never pickles. HF_TOKEN, HF_ENDPOINT, HF_HOME and HF_HUB_CACHE mean "
        "what they mean to Hugging Face's own tools."
    )


def run(args: argparse.Namespace) -> int:
    from ingle.hub.client import connect
    from ingle.hub.receipt import Receipt

    receipt = Receipt()
    facts: dict[str, Any] = {}
    try:
        with connect(receipt) as hub:
            facts = _pull(args, hub)
    except (IngleError, KeyboardInterrupt) as error:
        # not left to main: what was sent before the failure belongs on the receipt, too
        _print_failure(args, error, receipt)
        return 1
    facts["requests"] = _requests(receipt)
    print(json.dumps(facts, indent=2) if args.json else _text(facts))
    return 0


def _pull(args: argparse.Namespace, hub: Hub) -> dict[str, Any]:
    """What was done, or would be done, as the reply of --json without its receipt."""
    from ingle.engine.progress import progress
    from ingle.hub.pull import Plan, pull
    from ingle.models.local import hub_cache

    listing = hub.listing(args.repo, args.revision)
    plan = Plan(args.repo, args.revision, listing, hub_cache())
    facts = _facts(plan, hub)
    if args.dry_run:
        return facts | {"done": False}
    with progress(f"pulling {args.repo}", in_bytes=True) as show:
        fetched = set(pull(plan, hub, args.workers, show))
    for file in facts["files"]:
        file["state"] = "fetched" if file["name"] in fetched else "verified"
    return facts | {"done": True, "serve": _serve_name(plan)}


def _facts(plan: Plan, hub: Hub) -> dict[str, Any]:
    listing = plan.listing
    return {
        "repo": plan.repo,
        "revision": plan.revision,
        "commit": listing.commit,
        "hub": hub.host,
        "folder": str(plan.folder),
        "files": [
            {"name": f.name, "bytes": f.size, "digest": f"{f.algorithm}:{f.digest}",
             "state": plan.state(f)} for f in listing.files
        ],
        "left_out": [asdict(entry) for entry in listing.left_out],
        "bytes_to_fetch": plan.bytes_to_fetch(),
        "free_bytes": plan.free_bytes(),
    }  # fmt: skip


def _serve_name(plan: Plan) -> str:
    """What `ingle serve` has to be told: the id, if it leads to this commit, else the folder."""
    from ingle.models.local import resolve_model

    try:
        found = resolve_model(plan.repo)
    except ModelNotFoundError:
        return str(plan.folder)
    return plan.repo if found.resolve() == plan.folder.resolve() else str(plan.folder)


def _text(facts: dict[str, Any]) -> str:
    lines = [f"{facts['repo']} at {facts['revision']} ({facts['commit'][:12]}), {facts['hub']}", ""]
    lines += [f"  {f['state']:<10}{f['bytes']:>16,} B  {f['name']}" for f in facts["files"]]
    for why in sorted({entry["why"] for entry in facts["left_out"]}):
        names = [_shown(e["name"]) for e in facts["left_out"] if e["why"] == why]
        lines += ["", f"Left out, {why}:", *(f"  {name}" for name in names)]
    lines += ["", *_receipt_text(facts["requests"]), ""]
    if facts["done"]:
        lines += [f"All files are checked and in {facts['folder']}"]
        lines += [f"Next: ingle serve {facts['serve']}"]
    else:
        fits = "" if facts["bytes_to_fetch"] <= facts["free_bytes"] else ": it does not fit"
        lines.append(
            f"Nothing was fetched. To fetch: {facts['bytes_to_fetch'] / 1e9:,.2f} GB; free on the "
            f"disk of the cache: {facts['free_bytes'] / 1e9:,.2f} GB{fits}."
        )
    return "\n".join(lines)


def _receipt_text(requests: list[dict[str, Any]]) -> list[str]:
    return [
        "Receipt: every request that was made, and the bytes that came back",
        *(
            f"  {r['method']:<5}{r['status'] or 'none':>4}{r['received']:>16,} B  {r['host']}"
            f"{r['path']}"
            for r in requests
        ),
    ]


def _requests(receipt: Receipt) -> list[dict[str, Any]]:
    return [asdict(request) for request in receipt.requests()]


def _print_failure(args: argparse.Namespace, error: BaseException, receipt: Receipt) -> None:
    if isinstance(error, IngleError):
        code, message = error.code, str(error)
    else:
        code = "interrupted"
        message = "Interrupted. What came is kept; run the same command again to go on."
    requests = _requests(receipt)
    if args.json:
        reply = {"error": {"code": code, "message": message}, "requests": requests}
        print(json.dumps(reply, indent=2))
    elif requests:
        print("\n".join(_receipt_text(requests)))
    sys.stdout.flush()
    print(f"ingle: {message}", file=sys.stderr)


def _shown(name: str) -> str:
    """A name from the hub, without what could steer a terminal."""
    return name if name.isprintable() else ascii(name)


def _repo(text: str) -> str:
    """Hugging Face's rules for names; also keeps the id a plain folder name in the cache."""
    part = r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?"
    plain = re.fullmatch(f"{part}/{part}", text, re.ASCII) and len(text) <= 96
    if not plain or ".." in text or "--" in text or text.endswith(".git"):
        raise argparse.ArgumentTypeError(f"{text!r} is no id; expected owner/name")
    return text


def _revision(text: str) -> str:
    # also the name of a file below refs/
    if not re.fullmatch(r"[\w][\w.+@#/-]*", text, re.ASCII) or ".." in text or "//" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no branch, tag or commit")
    return text


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {_MOST_WORKERS}")
    return int(text)
