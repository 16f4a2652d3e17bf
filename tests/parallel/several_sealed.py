"""What each of several processes does in test_parallel_seal.py: it seals itself as a verb does, and
writes down what it can still do. `several_sealed.py FOLDER`."""

from __future__ import annotations

import json
import os
import socket
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from ingle.cli import sealing
from ingle.privacy import landlock


def tried(what: Callable[[], object]) -> str:
    try:
        what()
    except OSError as error:
        return f"{type(error).__name__} {error.errno}"
    return "done"


def facts(target: Path) -> dict:
    import torch
    import torch.distributed as dist

    total = torch.tensor(float(os.environ["RANK"]) + 1)
    dist.all_reduce(total)
    status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines()
                  if line.startswith("Cap"))  # fmt: skip
    near, _far = socket.socketpair()
    devices = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    return {
        "sum": float(total),
        "network": os.readlink("/proc/self/ns/net"),
        "devices": [line.split(":")[0].strip() for line in devices],
        "net_admin": any(int(status[name], 16) >> 12 & 1 for name in ("CapEff", "CapPrm")),
        "netlink": tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
        "datagram": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
        "addressed": tried(lambda: near.sendto(b"x", "/run/nobody")),
        "outside": tried(lambda: socket.create_connection(("192.0.2.1", 9), timeout=5)),
        "written": tried(lambda: (target.parent / "outside").touch()),
        "landlock": landlock.abi(),
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    sealing.enter(
        Namespace(own_process=True, unsealed=False, expert_parallel=2), target,
        starts="programs", several=True,
    )  # fmt: skip
    (target / f"facts-{os.environ['RANK']}").write_text(json.dumps(facts(target)), "utf-8")
