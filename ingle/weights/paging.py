"""Experts that stay on disk: mapped from the file of quantised weights, with those that are used
most kept in memory.

A token uses few of a layer's experts. The file's pages are the system's to drop, so nothing is ever
swapped; but the system drops what was read longest ago, and a model that is larger than memory
would push out every expert before its next use. So each layer keeps its own set, by how often an
expert was chosen lately, and tells the system what to read ahead and what to forget.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ingle.weights.cache import Place, find_in_cache, flat, map_bytes, over_bytes

_POPULATE_READ = 22  # madvise: read the pages now (Linux 5.14; not in every Python's mmap module)
_MEASURED = 256 << 20  # bytes read to measure the disk
_FADE = 512  # calls after which earlier uses of an expert count half


@dataclass
class PagingStats:
    """Since the start: bytes of experts wanted and of those that had to be read, and the seconds
    spent waiting for them. resident, limit, experts: bytes of experts in memory now, at most, and
    of all."""

    wanted: int = 0
    read: int = 0
    seconds: float = 0.0
    resident: int = 0
    limit: int = 0
    experts: int = 0


class MappedWeights:
    """A file of weights in memory as far as it is used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.region, self.raw = map_bytes(self.descriptor, os.fstat(self.descriptor).st_size)
        self.region.madvise(mmap.MADV_RANDOM)  # no read-ahead past what is asked for
        self.stats = PagingStats()

    def places(self, places: Mapping[str, Place]) -> dict[str, Place]:
        """The same places over the mapped file; WeightsError if it has others."""
        return over_bytes(self.raw, places, find_in_cache(self.path, flat(places)))

    def offset(self, tensor: Tensor) -> int:
        """Where a view of the file begins in it."""
        return tensor.data_ptr() - self.raw.data_ptr()

    def start_reading(self, begin: int, size: int) -> None:
        """Ask for bytes without waiting for them."""
        self._advise(mmap.MADV_WILLNEED, begin, size)

    def wait(self, begin: int, size: int) -> None:
        """Return when the bytes are in memory (or, on an old kernel, at once: they are read when
        they are touched)."""
        self._advise(_POPULATE_READ, begin, size)

    def forget(self, begin: int, size: int) -> None:
        """Give the memory of bytes back; pages shared with other bytes stay."""
        first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (begin + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self.region.madvise(mmap.MADV_DONTNEED, first, last - first)
            os.posix_fadvise(self.descriptor, first, last - first, os.POSIX_FADV_DONTNEED)

    def _advise(self, advice: int, begin: int, size: int) -> None:
        first = begin // mmap.PAGESIZE * mmap.PAGESIZE
        try:
            self.region.madvise(advice, first, begin + size - first)
        except OSError:
            return  # advice the kernel does not know or cannot follow changes speed, not results

    @cached_property
    def disk_speed(self) -> float:
        """Bytes a second that the disk gives for large reads of this file, cold: the limit of a
        model whose experts stay there. Measured once, in about a second."""
        size = min(os.fstat(self.descriptor).st_size, _MEASURED)
        os.posix_fadvise(self.descriptor, 0, size, os.POSIX_FADV_DONTNEED)
        piece = bytearray(4 << 20)
        started = time.perf_counter()
        for at in range(0, size, len(piece)):
            os.preadv(self.descriptor, [piece], at)
        return size / (time.perf_counter() - started)

    def notice(self) -> str:
        """What a person should know before the first answer."""
        stats = self.stats
        return (
            f"The model is larger than the memory: {stats.limit / 1e9:.2f} of "
            f"{stats.experts / 1e9:.2f} GB of experts are kept in it, the rest is read from disk "
            f"when a token needs it. It will be slow: this disk gives {self.disk_speed / 1e9:.2f} "
            "GB a second."
        )

    def report(self) -> str:
        """What has been read, and how fast against the limit."""
        stats = self.stats
        hits = 1 - stats.read / stats.wanted if stats.wanted else 0.0
        speed = stats.read / stats.seconds if stats.seconds else 0.0
        return (
            f"experts from disk: {stats.read / 1e9:.2f} GB at {speed / 1e9:.2f} GB/s, "
            f"{speed / self.disk_speed:.0%} of what the disk gives; {hits:.0%} were in memory"
        )


@dataclass
class LayerExperts:
    """The experts of one layer: which are in memory, and which to keep there.

    stacks: (offset in the file, bytes of one expert) of each stack of experts. capacity: experts
    to keep while none are computed; at least those of one token.
    """

    file: MappedWeights
    stacks: Sequence[tuple[int, int]]
    capacity: int
    resident: set[int] = field(default_factory=set)
    _uses: dict[int, float] = field(default_factory=dict)
    _calls: int = 0

    @property
    def expert_bytes(self) -> int:
        return sum(size for _, size in self.stacks)

    @contextmanager
    def holding(self, ids_NK: Tensor) -> Iterator[None]:
        """Bring the chosen experts into memory; afterwards forget the least used beyond capacity.

        A long prompt chooses nearly all: then more than the capacity is in memory for one layer.
        """
        chosen = torch.unique(ids_NK).tolist()
        missing = [expert for expert in chosen if expert not in self.resident]
        self._count(chosen)
        stats = self.file.stats
        started = time.perf_counter()
        for action in (self.file.start_reading, self.file.wait):
            for expert in missing:
                for begin, size in self.stacks:
                    action(begin + expert * size, size)
        stats.seconds += time.perf_counter() - started
        stats.wanted += len(chosen) * self.expert_bytes
        stats.read += len(missing) * self.expert_bytes
        stats.resident += len(missing) * self.expert_bytes
        self.resident.update(missing)
        yield
        self._shrink()

    def _count(self, chosen: list[int]) -> None:
        self._calls += 1
        if self._calls % _FADE == 0:
            self._uses = {expert: uses / 2 for expert, uses in self._uses.items()}
        for expert in chosen:
            self._uses[expert] = self._uses.get(expert, 0.0) + 1.0

    def _shrink(self) -> None:
        spare = len(self.resident) - self.capacity
        if spare <= 0:
            return
        for expert in sorted(self.resident, key=self._uses.__getitem__)[:spare]:
            self.resident.remove(expert)
            self.file.stats.resident -= self.expert_bytes
            for begin, size in self.stacks:
                self.file.forget(begin + expert * size, size)
