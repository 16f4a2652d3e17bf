"""How a model's weights and cache are kept in memory: the meaning of `--quant`."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch

from ingle.errors import ConfigError, MemoryNeededError
from ingle.kernels.quantized import Kind
from ingle.models.config import ModelConfig, WithExperts

Quant = Literal["auto", "fp32", "bf16", "fp8", "int8", "int4"]
_SMALL = 1 << 30  # bytes in bf16 below which nothing is gained by rounding
_SHARE = 0.6  # of the free memory that weights may take, leaving room for the cache
_MOST = 0.9  # of the free memory, for weights that are more: then the cache has to be small
BITS: dict[str, float] = {"fp32": 32, "bf16": 16, "fp8": 8.002, "int8": 8.25, "int4": 4.25}


@dataclass(frozen=True)
class Storage:
    """dtype: of weights that are not quantised. kind: how matrices are. cache: dtype of latents,
    keys and values. experts: bytes of experts kept in memory while the rest stays on disk
    (weights/paging.py); None: all are in memory."""

    dtype: torch.dtype
    kind: Kind | None
    cache: torch.dtype
    experts: int | None = None


def choose_storage(
    quant: Quant, config: ModelConfig, stored: torch.dtype, experts: int | None = None
) -> Storage:
    """What to keep a model of this config in, and where: a mixture whose weights are more than the
    free memory leaves experts on disk. `experts` sets the bytes of them to keep in memory.

    Raises MemoryNeededError where not even that fits.
    """
    storage = _choose_dtypes(quant, config, stored)
    name = storage.kind or ("fp32" if storage.dtype is torch.float32 else "bf16")
    free = int(_MOST * available_memory())
    whole = weight_bytes(config, name)
    if experts is None and whole <= free:
        return storage
    each = expert_bytes(config, name) if isinstance(config, WithExperts) else 0
    room = free - (whole - each)
    if not each or room < 0:
        raise MemoryNeededError(
            f"The weights take {whole / 1e9:.3g} GB in {name} and {free / 1e9:.3g} GB are free: "
            "take --quant int4, a smaller model, or a machine with more memory (ingle doctor MODEL "
            "compares them)."
        )
    return replace(storage, experts=min(room, each) if experts is None else experts)


def expert_bytes(config: WithExperts, quant: str) -> int:
    """Bytes of all routed experts, those of MTP modules not counted."""
    layers = config.num_hidden_layers - config.first_k_dense_replace
    values = 3 * config.hidden_size * config.moe_intermediate_size * config.n_routed_experts
    return int(layers * values * BITS[quant] / 8)


def _choose_dtypes(quant: Quant, config: ModelConfig, stored: torch.dtype) -> Storage:
    """What the weights and the cache are kept in.

    stored: what most of its file is in. "auto": below 1 GB without any loss, so bf16 where the
    file is that and else fp32; above that int8 where it leaves enough memory free, else int4.
    Raises ConfigError for an unknown word.
    """
    if quant not in get_args(Quant):
        raise ConfigError(f"quant must be one of {', '.join(get_args(Quant))}.")
    if quant == "auto":
        if weight_bytes(config, "bf16") < _SMALL:
            exact = stored if stored is torch.bfloat16 else torch.float32
            return Storage(exact, None, torch.float32)
        fits = weight_bytes(config, "int8") < _SHARE * available_memory()
        quant = "int8" if fits else "int4"
    if quant == "fp32":
        return Storage(torch.float32, None, torch.float32)
    if quant == "bf16":
        return Storage(torch.bfloat16, None, torch.bfloat16)
    return Storage(torch.bfloat16, quant, torch.bfloat16)


def weight_bytes(config: ModelConfig, quant: str) -> int:
    """Estimate of the memory that the weights take, the tables at int8 if matrices are rounded."""
    tables = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    matrices = config.count_parameters() - tables
    table_bits = 8.25 if quant == "int4" else BITS[quant]
    return int((matrices * BITS[quant] + tables * table_bits) / 8)


def available_memory() -> int:
    """Bytes that can be taken without pushing others out, within this process's own limits."""
    limits = _cgroup_rooms(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    if not limits:  # not Linux: half of what there is
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    return min(limits)


def _cgroup_rooms(groups: Path, root: Path) -> list[int]:
    """What the control groups of a process leave it, files cached for it not counted as used.

    groups: /proc/self/cgroup, a line `id:controllers:path` each; the second version of the
    interface has no controllers there. In a container the path may only be known outside of it.
    """
    rooms = []
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        if not controllers:
            names = ("memory.max", "memory.current")
        for folder in (root / controllers / path.lstrip("/"), root / controllers):
            with suppress(OSError, ValueError):  # "max": no limit
                limit, used = (int((folder / name).read_text()) for name in names)
                stat = dict(x.split() for x in (folder / "memory.stat").read_text().splitlines())
                cached = int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0))
                rooms.append(max(0, limit - used + cached))
                break
    return rooms
