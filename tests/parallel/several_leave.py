"""Ends right after an exchange whose tensor a thread of gloo drops last, which takes it a while."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
import torch.distributed as dist

from ingle.parallel.mesh import join


class Slow:
    """Busy, with the interpreter's lock, when it is dropped."""

    def __del__(self) -> None:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass


def starve_gloo() -> None:
    """Its threads run only where nothing else does: they are late to drop what they hold."""
    cpu = {min(os.sched_getaffinity(0))}
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), cpu)
        if "runloop" in (thread / "comm").read_text():
            os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


if __name__ == "__main__":
    join(1)
    dist.all_reduce(torch.ones(1))
    starve_gloo()
    for _ in range(4):
        tensor = torch.ones(1000)
        tensor.slow = Slow()  # type: ignore[attr-defined]
        dist.all_reduce(tensor)
