"""What torchrun tells a process it starts. No torch here: verbs ask before they are sealed."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from dataclasses import dataclass

from ingle.errors import ConfigError


@dataclass(frozen=True)
class Launch:
    """This process's number and how many there are: of the run, and of those on this machine."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def launch(environment: MutableMapping[str, str] = os.environ) -> Launch | None:
    """How torchrun started this process; None if it did not."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if not {*names, "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        return None
    return Launch(*(int(environment[name]) for name in names))


def leads() -> bool:
    """Whether this process is alone, or the one of several that prints and writes."""
    found = launch()
    return found is None or found.rank == 0


def meet_among_ourselves(environment: MutableMapping[str, str] = os.environ) -> None:
    """In a network without torchrun: the first process, not that, keeps the list of addresses."""
    environment.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_USE_AGENT_STORE="False")


def refuse_several(verb: str) -> None:
    """ConfigError for a verb that knows one process only."""
    if launch() is not None:
        raise ConfigError(f"{verb} runs in one process: start it without torchrun.")
