"""Quantised weights on disk, so that the second start of a model only reads, and so that experts
may stay there (weights/paging.py).

The file's name holds a digest of what it was made from: name, size, time of change and header of
every shard, the storage chosen and the version of the rounding. A shard that changes gets another
name; files of models that are gone can be deleted at any time.

Legend: a "place" is where a tensor of the model is kept, plain or `Quantized`.
"""

from __future__ import annotations

import mmap
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from ingle.errors import WeightsError
from ingle.kernels.quantized import Quantized
from ingle.state import state_folder
from ingle.weights.header import read_header
from ingle.weights.safetensors import DTYPES, layout, write_tensors

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
    """Where quantised weights are kept."""
    return state_folder() / "weights"


def write_cache(path: Path, places: Mapping[str, Place]) -> None:
    """Write all places, atomically. Raises WeightsError where the disk has no room."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, flat(places))
    except OSError as error:
        raise WeightsError(f"The quantised weights could not be kept ({error.strerror}).") from None


def find_in_cache(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, int]:
    """Where each tensor begins in the file; WeightsError if it is a file of other tensors."""
    header, start = read_header(path)
    for name, tensor in wanted.items():
        entry = header.get(name)
        if entry is None or (entry["shape"], DTYPES[entry["dtype"]]) != (
            list(tensor.shape), tensor.dtype,
        ):  # fmt: skip
            raise WeightsError(f"{path.name} in the cache is of another model; delete it.")
    return {name: start + header[name]["data_offsets"][0] for name in wanted}


def read_cache(
    path: Path, places: Mapping[str, Place], progress: Callable[[int, int], None] | None
) -> None:
    """Fill all places from a file of these and perhaps others; WeightsError if it lacks one."""
    wanted = flat(places)
    begins = find_in_cache(path, wanted)
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
                for at in range(0, len(view), _PIECE):
                    jobs.append(pool.submit(read, view[at : at + _PIECE], begins[name] + at))
            for job in jobs:
                job.result()
    finally:
        os.close(descriptor)


@contextmanager
def build_cache(path: Path, places: Mapping[str, Place]) -> Iterator[dict[str, Place]]:
    """Make a file for places (on the meta device) that need not fit into memory: gives the places
    over the mapped file, to be filled; the system writes them out as it needs the memory.

    Raises WeightsError where the disk has no room for them.
    """
    wanted = flat(places)
    head, begins = layout(wanted)
    size = len(head) + sum(tensor.nbytes for tensor in wanted.values())
    unfinished = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, not a signal
            file.write(head)
            file.flush()
            _, raw = map_bytes(file.fileno(), size, writable=True)
            yield over_bytes(raw, places, begins)
        os.replace(unfinished, path)
    except OSError as error:
        raise WeightsError(
            f"The quantised weights need {size / 1e9:.1f} GB on disk ({error.strerror}); "
            "INGLE_CACHE may name a folder with more room."
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)


def map_bytes(descriptor: int, size: int, writable: bool = False) -> tuple[mmap.mmap, Tensor]:
    """A file as one tensor of bytes, read from disk where it is touched."""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    region = mmap.mmap(descriptor, size, mmap.MAP_SHARED, protection)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch has no read-only tensors; no one writes to these
        return region, torch.frombuffer(region, dtype=torch.uint8)


def over_bytes(
    raw: Tensor, places: Mapping[str, Place], begins: Mapping[str, int]
) -> dict[str, Place]:
    """The same places as views of a file's bytes."""

    def view(name: str, like: Tensor) -> Tensor:
        bytes_of = raw[begins[name] : begins[name] + like.nbytes]
        return bytes_of.view(like.dtype).view(like.shape)

    found: dict[str, Place] = {}
    for name, place in places.items():
        if isinstance(place, Quantized):
            data, scale = (
                view(f"{name}:{place.kind}", place.data),
                view(f"{name}:scale", place.scale),
            )
            found[name] = Quantized(place.kind, data, scale, place.inner)
        else:
            found[name] = view(name, place)
    return found


def flat(places: Mapping[str, Place]) -> dict[str, Tensor]:
    """Every tensor of the places under its name in the file."""
    flat: dict[str, Tensor] = {}
    for name, place in places.items():
        if isinstance(place, Quantized):
            flat |= {f"{name}:{place.kind}": place.data, f"{name}:scale": place.scale}
        else:
            flat[name] = place
    return flat
