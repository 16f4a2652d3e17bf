"""`ingle prove`: attack the seal, then the same without it; or look at a running server."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from ingle.cli.options import add_json
from ingle.state import state_folder

if TYPE_CHECKING:
    from ingle.privacy.attempt import Row
    from ingle.privacy.prove import Outside, Proof

SERVER = "PID"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pid", type=int, metavar="PID", help="look at this process instead, through the kernel"
    )
    parser.add_argument(
        "--profile",
        choices=("sealed", "private-net"),
        default="sealed",
        help="sealed: one process without any network (default); private-net: several that reach "
        "each other over 127.0.0.1 and nothing else",
    )
    add_json(parser)
    parser.epilog = "Exit code 1: an attempt got through, or what was looked at is not sealed."


def run(args: argparse.Namespace) -> int:
    from ingle.privacy.prove import commands, look_at, prove

    if args.pid is not None:
        outside = look_at(args.pid)
        if args.json:
            facts = outside.as_json() | {"commands": list(commands(args.pid))}
            print(json.dumps(facts, indent=2))
        else:
            print(_seen(outside))
        return 0 if outside.holds else 1
    proof = prove(args.profile, [state_folder()])
    if args.json:
        print(json.dumps(proof.as_json() | {"commands": list(commands(SERVER))}, indent=2))
    else:
        _show(proof)
    return 0 if proof.holds else 1


def _show(proof: Proof) -> None:
    from rich.console import Console
    from rich.table import Table

    from ingle.privacy.prove import LEAST_LEAKS, NOT_COVERED, commands

    person = sys.stdout.isatty()
    width = None if person else 140
    console = Console(file=sys.stdout, highlight=False, no_color=not person, width=width)
    without = {row.name: row for row in proof.control or ()}
    table = Table("attempt", "what is tried", "sealed", "seal off", box=None, pad_edge=False)
    for row in proof.rows:
        control = without.get(row.name)
        table.add_row(
            row.name,
            row.what,
            f"[green]{row.answer}[/]" if row.held else f"[bold red]{_unsealed(row)}[/]",
            "not tried" if control is None else _unsealed(control),
        )
    console.print(table)
    count, failed = len(proof.rows), len(proof.failed)
    console.print(f"\n{count} attempts sealed: {failed} succeeded. Seal off: {proof.leaks} got out "
                  f"(at least {LEAST_LEAKS} must, or this proves nothing).")  # fmt: skip
    console.print(f"{str(proof.seal)[:1].upper()}{str(proof.seal)[1:]}.", soft_wrap=True)
    console.print("\nNot covered:")
    for line in NOT_COVERED:
        console.print(f"  {line}")
    console.print("\nCheck a running server without ingle (its banner has the number for PID):")
    for line in commands(SERVER):
        console.print(f"  {line}", soft_wrap=True)


def _unsealed(row: Row) -> str:
    return "GOT OUT" if row.heard else "possible" if row.answer == "done" else row.answer


def _seen(outside: Outside) -> str:
    from ingle.privacy.prove import commands

    def yes(fact: bool) -> str:
        return "yes" if fact else "NO"

    network = "empty, nothing was ever sent" if outside.own_network else (
        f"with {', '.join(outside.devices)}"
    )  # fmt: skip
    sockets = "only root and its owner may look" if outside.sockets is None else outside.sockets
    return "\n".join([
        f"Process {outside.pid}, as the kernel describes it:",
        f"  under a system call filter   {yes(outside.filtered)}",
        f"  can gain no privileges       {yes(outside.no_new_privs)}",
        f"  its network                  {network}",
        f"  sockets it holds             {sockets}",
        "",
        "The same without ingle:",
        *(f"  {line}" for line in commands(outside.pid)),
    ])  # fmt: skip
