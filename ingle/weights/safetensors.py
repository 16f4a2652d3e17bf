"""Read and write sharded safetensors, trusting nothing in the file.

The header is checked in full before a tensor is mapped: length, UTF-8, duplicate names, known
dtypes, and byte ranges that are inside the file, do not overlap and leave no gap. Nothing is ever
unpickled.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ingle.errors import WeightsError

_MAX_HEADER = 100 << 20  # the format's own limit
_MAX_TENSORS = 200_000  # of one file; the largest release has half as many in all
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_CODES = {dtype: code for code, dtype in DTYPES.items()}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, by its index where there is one."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        single = folder / "model.safetensors"
        if single.is_file():
            return [single]
        if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
            raise WeightsError(
                "The weights are in a pickle format, which can run code and is never opened. Get "
                "the model's safetensors files."
            )
        raise WeightsError("The folder holds no model.safetensors and no index of shards.")
    return [folder / name for name in sorted(set(read_index(folder).values()))]


def read_index(folder: Path) -> dict[str, str]:
    """Tensor -> file by the index of shards, {} without one; every file named is in the folder."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return {}
    if index.stat().st_size > _MAX_HEADER:
        raise WeightsError(f"{index.name} is larger than any index of shards can be.")
    try:
        found = json.loads(index.read_text("utf-8"), object_pairs_hook=_no_duplicates)
        weight_map = dict(found["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(f"{index.name} is damaged ({error}).") from None
    for name in set(map(str, weight_map.values())):
        if Path(name).name != name or not (folder / name).is_file():
            raise WeightsError(f"{index.name} names {name!r}, which is no file in the folder.")
    return {str(tensor): str(file) for tensor, file in weight_map.items()}


def read_header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Checked header: {tensor name: {dtype, shape, data_offsets}}, and where the data begins."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > _MAX_HEADER or 8 + length > size:
            raise WeightsError(
                f"{path.name} is truncated or no safetensors file: its header claims {length} "
                f"bytes of {size}. Download it again."
            )
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path.name}: the header is damaged ({error}).") from None
    if not isinstance(header, dict):
        raise WeightsError(f"{path.name}: the header is not an object.")
    header.pop("__metadata__", None)
    if len(header) > _MAX_TENSORS:
        raise WeightsError(f"{path.name} claims to hold {len(header):,} tensors.")
    _check_ranges(path.name, header, size - 8 - length)
    return header, 8 + length


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of one file; each is a read-only view of the mapped file until copied."""
    header, start = read_header(path)
    if path.stat().st_size == start:
        return
    data = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    for name, entry in header.items():
        low, high = entry["data_offsets"]
        raw = data[start + low : start + high]
        if (start + low) % 8:  # a view as a wider dtype needs an aligned start
            raw = raw.clone()
        yield name, raw.view(DTYPES[entry["dtype"]]).view(entry["shape"])


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write one file, atomically; tensors may share memory."""
    write_tensors(path, {k: v.detach().contiguous() for k, v in tensors.items()}, metadata)


def layout(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, int]]:
    """The first bytes of a file of these tensors (length and header), and where each begins.

    Larger items come first, as the format's own library does, so that views are aligned.
    """
    order = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    begins, end = {}, 0
    for name, tensor in order:
        entry = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape)}
        header[name] = entry | {"data_offsets": [end, end + tensor.nbytes]}
        begins[name] = end
        end += tensor.nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    start = 8 + len(raw)
    return len(raw).to_bytes(8, "little") + raw, {n: start + at for n, at in begins.items()}


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write contiguous tensors, none copied; a reader sees the old file or all of the new."""
    head, begins = layout(tensors, metadata)
    unfinished = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with unfinished.open("wb") as file:
            file.write(head)
            for name in begins:
                file.write(tensors[name].view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a name occurs twice")
    return out


def _check_ranges(file: str, header: dict[str, Any], data_bytes: int) -> None:
    ranges = []
    for name, entry in header.items():
        try:
            dtype, shape, (low, high) = entry["dtype"], entry["shape"], entry["data_offsets"]
            whole = all(type(n) is int and n >= 0 for n in [*shape, low, high])
            width = torch.tensor([], dtype=DTYPES[dtype]).element_size()
            if not whole or high - low != math.prod(shape) * width:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise WeightsError(f"{file}: the entry of {name!r} is damaged.") from None
        ranges.append((low, high))
    position = 0
    for low, high in sorted(ranges):
        if low != position:
            raise WeightsError(f"{file}: tensor data overlap or leave a gap at byte {position}.")
        position = high
    if position != data_bytes:
        raise WeightsError(
            f"{file} is truncated or too long: its tensors need {position} bytes, the file has "
            f"{data_bytes}. Download it again."
        )
