"""Low-rank adapters (LoRA, arXiv 2106.09685) in PEFT's file format, laid over a checkpoint.

    adapter_config.json           r, lora_alpha, target_modules, ...
    adapter_model.safetensors     base_model.model.NAME.lora_A.weight [R, I], ...lora_B... [O, R]

NAME.weight is the matrix of the base checkpoint, [O, I]; with the adapter it is W + scale * B A.
The sum is taken in fp32 row by row as the matrix is read, so that it is rounded once, whatever the
model is then kept in.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ingle.errors import ConfigError, WeightsError
from ingle.weights.checkpoint import Checkpoint
from ingle.weights.safetensors import read_tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
_MAX_CONFIG_BYTES = 4 << 20
# What would change the sum above; only its absence is understood.
_ABSENT = (
    "use_dora", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern",
    "layer_replication", "lora_bias", "target_parameters", "trainable_token_indices",
    "use_qalora", "alora_invocation_tokens", "corda_config", "eva_config", "megatron_config",
)  # fmt: skip


@dataclass(frozen=True)
class Adapter:
    """Pairs A [R, I] and B [O, R] by the name of the checkpoint's matrix, and their one scale."""

    scale: float
    pairs: dict[str, tuple[Tensor, Tensor]]

    def change(self, name: str, first: int, last: int) -> Tensor | None:
        """What is added to rows [first, last) of a matrix, fp32; None for one left alone."""
        if name not in self.pairs:
            return None
        down, up = self.pairs[name]
        return self.scale * (up[first:last].float() @ down.float())


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter folder; ConfigError or WeightsError for one that is damaged or of a kind
    other than plain LoRA on matrices."""
    config = _read_config(folder)
    if not (folder / WEIGHTS).is_file():
        raise WeightsError(f"The adapter holds no {WEIGHTS}; pickled adapters are never opened.")
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in read_tensors(folder / WEIGHTS):
        end = next((end for end in (A, B) if name.endswith(end)), None)
        if end is None or not name.startswith(PREFIX) or tensor.dim() != 2:
            raise WeightsError(f"The adapter holds {name}, which is no matrix of a plain LoRA.")
        halves.setdefault(name.removeprefix(PREFIX).removesuffix(end) + ".weight", {})[end] = tensor
    for name, found in halves.items():
        ranks = {len(found[A]), found[B].shape[1]} if len(found) == 2 else set()
        if ranks != {config["r"]}:
            raise WeightsError(f"The adapter's pair for {name} is incomplete or not of rank r.")
    rank: float = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Adapter(scale, {name: (found[A], found[B]) for name, found in halves.items()})


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ConfigError(f"{CONFIG} is larger than any adapter's configuration.")
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        raise ConfigError(f"{folder.name} holds no {CONFIG} that can be read.") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ConfigError(f"{CONFIG}: only peft_type LORA is supported.")
    for name in _ABSENT:
        if config.get(name):
            raise ConfigError(f"{CONFIG}: {name} is not supported.")
    if config.get("bias", "none") != "none":
        raise ConfigError(f"{CONFIG}: trained biases are not supported.")
    for name in ("r", "lora_alpha"):
        value = config.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ConfigError(f"{CONFIG}: {name} must be a number above 0.")
    return config


class AdaptedCheckpoint(Checkpoint):
    """A checkpoint whose matrices are read with an adapter in them, in fp32 where it changes them.

    Raises as `Checkpoint` and `read_adapter`, and WeightsError for an adapter of another model or
    of matrices in fp8.
    """

    def __init__(self, folder: Path, adapter: Path) -> None:
        super().__init__(folder)
        self._adapter = read_adapter(adapter)
        for name, (down, up) in self._adapter.pairs.items():
            entry = self.entries.get(name)
            if entry is None or entry.shape != (len(up), down.shape[1]):
                raise WeightsError(f"The adapter is of another model: {name} does not fit.")
            if entry.dtype not in (torch.float32, torch.bfloat16, torch.float16):
                raise WeightsError(
                    f"{name} is kept in {entry.dtype}: an adapter needs a base in bf16."
                )
        self.files = [*self.files, adapter / WEIGHTS]  # what is read depends on it, too

    def read(self, name: str, first: int = 0, last: int | None = None) -> Tensor:
        rows = super().read(name, first, last)
        change = self._adapter.change(name, first, first + len(rows)) if rows.dim() else None
        return rows if change is None else rows.float() + change


def open_checkpoint(folder: Path, adapter: Path | None = None) -> Checkpoint:
    """The weights of a model folder, with an adapter in them if one is given."""
    return Checkpoint(folder) if adapter is None else AdaptedCheckpoint(folder, adapter)
