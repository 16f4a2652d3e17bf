"""The header of a safetensors file, and the index of shards, trusting nothing in them.

Checked in full before a tensor is mapped: length, UTF-8, duplicate names, known dtypes, and byte
ranges that are inside the file, do not overlap and leave no gap. Needs no torch.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ingle.errors import WeightsError

INDEX = "model.safetensors.index.json"  # which tensor is in which of several files
_MAX_HEADER = 100 << 20  # the format's own limit
_MAX_TENSORS = 200_000  # of one file; the largest release has half as many in all
WIDTHS = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, by its index where there is one."""
    if not (folder / INDEX).is_file():
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
    index = folder / INDEX
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
            if not whole or high - low != math.prod(shape) * WIDTHS[dtype]:
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
