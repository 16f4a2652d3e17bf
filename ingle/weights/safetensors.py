"""Read and write safetensors, trusting nothing in the file.

The header is checked in full before a tensor is mapped (header.py). Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ingle.weights.header import read_header

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_CODES = {dtype: code for code, dtype in DTYPES.items()}


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
