"""All tensors of a model folder by name, read piece by piece on demand.

Reading goes through plain file reads into fresh memory: a mapped file would count its pages as
this process's own until the system takes them back, and faults page by page.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from ingle.errors import WeightsError
from ingle.weights.header import read_header, read_index, weight_files
from ingle.weights.safetensors import DTYPES

_PIECE = 8 << 20  # bytes read at a time


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies."""

    file: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Checkpoint:
    """The checked headers of all shards; tensors are read when asked for, by any thread."""

    def __init__(self, folder: Path) -> None:
        """Raises WeightsError for a damaged file or a tensor that occurs twice."""
        self.files = weight_files(folder)
        self.entries: dict[str, Entry] = {}
        self._descriptors: list[int] = []
        for index, path in enumerate(self.files):
            header, start = read_header(path)
            for name, claimed in header.items():
                if name in self.entries:
                    raise WeightsError(f"{name} occurs in more than one shard.")
                begin = start + claimed["data_offsets"][0]
                shape = tuple(claimed["shape"])
                self.entries[name] = Entry(index, DTYPES[claimed["dtype"]], shape, begin)
        for name, file in read_index(folder).items():
            entry = self.entries.get(name)
            if entry is None or self.files[entry.file].name != file:
                raise WeightsError(f"The index says that {name} is in {file}; it is not.")

    @property
    def dtype(self) -> torch.dtype:
        """What most of the bytes are in."""
        sizes: Counter[torch.dtype] = Counter()
        for entry in self.entries.values():
            sizes[entry.dtype] += entry.nbytes
        return sizes.most_common(1)[0][0] if sizes else torch.float32

    def __enter__(self) -> Checkpoint:
        self._descriptors = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in self.files]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def read(self, name: str, first: int = 0, last: int | None = None) -> Tensor:
        """Rows [first, last) of a tensor (all by default), in its own dtype."""
        entry = self.entries[name]
        if not entry.shape:
            return self._bytes(entry.file, entry.begin, entry.nbytes).view(entry.dtype).view(())
        last = entry.shape[0] if last is None else last
        size = (last - first) * entry.row_bytes
        raw = self._bytes(entry.file, entry.begin + first * entry.row_bytes, size)
        return raw.view(entry.dtype).view(last - first, *entry.shape[1:])

    def pieces(self, name: str, multiple: int = 1) -> Iterator[tuple[int, int]]:
        """Row ranges of a tensor, each small, each beginning at a multiple of `multiple`."""
        entry = self.entries[name]
        rows = entry.shape[0] if entry.shape else 1
        step = max(1, _PIECE // max(1, entry.row_bytes) // multiple) * multiple
        for first in range(0, rows, step):
            yield first, min(rows, first + step)

    def _bytes(self, file: int, begin: int, size: int) -> Tensor:
        raw = torch.empty(size, dtype=torch.uint8)
        view = memoryview(raw.numpy())  # type: ignore[arg-type]
        done = 0
        while done < size:
            count = os.preadv(self._descriptors[file], [view[done:]], begin + done)
            if count == 0:
                raise WeightsError(f"{self.files[file].name} became shorter while it was read.")
            done += count
        return raw
