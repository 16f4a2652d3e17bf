"""The processes of a run, as torchrun started them: who is who, and who shares what with whom."""

from __future__ import annotations

import atexit
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ingle.errors import ConfigError
from ingle.parallel.environment import launch


@dataclass(frozen=True)
class World:
    """All processes in one row (`all`), and the same as a table (`table`) of replicas by experts:
    those of a row hold different experts, those of a column parts of the same."""

    rank: int
    size: int
    all: DeviceMesh
    table: DeviceMesh

    @property
    def replicas(self) -> DeviceMesh:
        return self.table["replicas"]

    @property
    def experts(self) -> DeviceMesh:
        return self.table["experts"]


@cache  # groups are made once: of a sealed process, before its seal is complete
def join(expert_parallel: int) -> World | None:
    """Meet the other processes; None where torchrun did not start this one.

    expert_parallel: how many processes share the experts of a layer. Raises ConfigError where it
    does not divide their number. The first call connects, over gloo.
    """
    if (found := launch()) is None:
        return None
    size = found.size
    if size % expert_parallel:
        raise ConfigError(f"{size} processes cannot share experts {expert_parallel} by "
                          f"{expert_parallel}: choose a divisor of {size}.")  # fmt: skip
    if not dist.is_initialized():
        dist.init_process_group("gloo")
        atexit.register(_leave)
    row = init_device_mesh("cpu", (size,), mesh_dim_names=("all",))
    shape = (size // expert_parallel, expert_parallel)
    table = init_device_mesh("cpu", shape, mesh_dim_names=("replicas", "experts"))
    return World(found.rank, size, row, table)


def _leave() -> None:
    """Part from the other processes at exit, once gloo's threads have dropped what they hold.

    A thread of gloo may hold the last reference to a tensor of the last exchange. Dropping it takes
    the interpreter's lock, and a thread that asks for that while the interpreter ends aborts the
    process (`TensorImpl::decref_pyobject` below `ProcessGroupGloo::runLoop`).
    """
    dist.destroy_process_group()
    deadline, idle = time.monotonic() + 10, 0
    while idle < 2 and time.monotonic() < deadline:
        time.sleep(0.01)  # the lock is free meanwhile
        idle = 0 if any(map(_runs, Path("/proc/self/task").glob("*"))) else idle + 1


def _runs(thread: Path) -> bool:
    """Whether a thread of gloo is at work."""
    try:
        name, _, after = (thread / "stat").read_text().partition("(")[2].rpartition(")")
    except OSError:  # it has just ended
        return False
    return name == "pt_gloo_runloop" and after.split()[0] != "S"
