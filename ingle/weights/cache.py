"""Quantised weights on disk, so that the second start of a model only reads.

The file's name holds a digest of what it was made from: name, size, time of change and header of
every shard, the storage chosen and the version of the rounding. A shard that changes gets another
name; files of models that are gone can be deleted at any time.

Legend: a "place" is where a tensor of the model is kept, plain or `Quantized`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from ingle.errors import WeightsError
from ingle.kernels.quantized import Quantized
from ingle.weights.safetensors import DTYPES, read_header, write_tensors

_ROUNDING = 1  # raised when quantise gives other values for the same weights
_PIECE = 16 << 20
_WORKERS = min(8, os.cpu_count() or 1)
Place = Tensor | Quantized


def cache_file(shards: list[Path], storage: str) -> Path:
    """Where the weights of these shards, kept as `storage` says, are or would be."""
    digest = sha256(f"{_ROUNDING}:{storage}".encode())
    for path in shards:
        state = path.stat()
        digest.update(f":{path.name}:{state.st_size}:{state.st_mtime_ns}:".encode())
        with path.open("rb") as file:
            digest.update(file.read(8 + int.from_bytes(file.read(8), "little")))
    return cache_folder() / f"{digest.hexdigest()[:32]}.safetensors"


def cache_folder() -> Path:
    """`$INGLE_CACHE`, else the user's cache folder."""
    if path := os.environ.get("INGLE_CACHE"):
        return Path(path).expanduser() / "weights"
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(base).expanduser() / "ingle" / "weights"


def write_cache(path: Path, places: Mapping[str, Place]) -> None:
    """Write all places, atomically. Raises WeightsError where the disk has no room."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, _flat(places))
    except OSError as error:
        raise WeightsError(f"The quantised weights could not be kept ({error.strerror}).") from None


def read_cache(
    path: Path, places: Mapping[str, Place], progress: Callable[[int, int], None] | None
) -> None:
    """Fill all places from a file that `write_cache` made; WeightsError if it is not that."""
    header, start = read_header(path)
    wanted = _flat(places)
    for name, tensor in wanted.items():
        entry = header.get(name)
        if entry is None or (entry["shape"], DTYPES[entry["dtype"]]) != (
            list(tensor.shape), tensor.dtype,
        ):  # fmt: skip
            raise WeightsError(f"{path.name} in the cache is of another model; delete it.")
    total, done, lock = sum(t.nbytes for t in wanted.values()), 0, Lock()
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(view: memoryview, begin: int) -> None:
        nonlocal done
        size = 0
        while size < len(view):
            count = os.preadv(descriptor, [view[size:]], begin + size)
            if count == 0:
                raise WeightsError(f"{path.name} in the cache is cut short; delete it.")
            size += count
        with lock:
            done += size
            if progress is not None:
                progress(done, total)

    try:
        with ThreadPoolExecutor(_WORKERS) as pool:
            jobs = []
            for name, tensor in wanted.items():
                view = memoryview(tensor.view(torch.uint8).flatten().numpy())  # type: ignore[arg-type]
                begin = start + header[name]["data_offsets"][0]
                for at in range(0, len(view), _PIECE):
                    jobs.append(pool.submit(read, view[at : at + _PIECE], begin + at))
            for job in jobs:
                job.result()
    finally:
        os.close(descriptor)


def _flat(places: Mapping[str, Place]) -> dict[str, Tensor]:
    flat: dict[str, Tensor] = {}
    for name, place in places.items():
        if isinstance(place, Quantized):
            flat |= {f"{name}:{place.kind}": place.data, f"{name}:scale": place.scale}
        else:
            flat[name] = place
    return flat
