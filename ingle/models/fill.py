"""Tensors of a model and how they are filled from a checkpoint: read in pieces, converted or
quantised on the way, and put straight into their place.

At no time is more in memory than the model itself and a few pieces.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor, nn

from ingle.errors import WeightsError
from ingle.kernels.quantized import BLOCK, GROUP, Kind, Quantized, dequantise_blocks
from ingle.models.causal_lm import CausalLM
from ingle.models.layers.linear import replace_weight
from ingle.weights.checkpoint import Checkpoint
from ingle.weights.names import FP32, SCALE, sources
from ingle.weights.quantize import quantise

Progress = Callable[[int, int], None]  # bytes done, bytes in all

# Matrices that may be quantised; the rest (norms, routers, kv_b_proj, biases) is small or precise.
_MATRICES = (
    "q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight", "q_a_proj.weight",
    "q_b_proj.weight", "kv_a_proj_with_mqa.weight", "gate_proj.weight", "up_proj.weight",
    "down_proj.weight", "experts.gate_up_proj", "experts.down_proj", "eh_proj.weight",
)  # fmt: skip
_TABLES = ("embed_tokens.weight", "head.weight")  # int8 at least: they see every token
_WORKERS = min(8, os.cpu_count() or 1)


class Target:
    """One tensor of the model: where its rows come from and how they are kept."""

    def __init__(
        self, name: str, shape_of: Tensor, dtype: torch.dtype, quant: Kind | None,
        importance_I: Tensor | None,
    ) -> None:  # fmt: skip
        self.name, self.shape, self.importance_I = name, shape_of.shape, importance_I
        self.sources = sources(name, self.shape)
        self.kind = _kind(name, self.shape, quant)
        self.place: Tensor | Quantized
        if self.kind is None:
            self.place = torch.empty(
                self.shape, dtype=torch.float32 if name.endswith(FP32) else dtype
            )
        else:
            self.place = _empty(self.kind, self.shape)

    def put(self, rows: Tensor, scale: Tensor | None, expert: int | None, first: int) -> None:
        """Take rows `first ..` (of one expert): fp8 with the scales of their squares, or plain."""
        place = self.place
        if scale is not None and self.kind != "fp8":
            rows, scale = dequantise_blocks(rows, scale), None
        if isinstance(place, Tensor):
            where = place if expert is None else place[expert]
            if rows.dim() == 0:
                where.copy_(rows)
            else:
                where[first : first + len(rows)] = rows
            return
        if scale is None:
            wide = rows if rows.dtype in (torch.float32, torch.bfloat16) else rows.float()
            made = quantise(wide, place.kind, self.importance_I)
            rows, scale = made.data, made.scale
        whole = place if expert is None else place[expert]
        whole.data[first : first + len(rows)] = rows
        at = first // BLOCK if place.kind == "fp8" else first
        whole.scale[at : at + len(scale)] = scale

    def attach(self, model: CausalLM) -> None:
        """Make the filled tensor the model's own."""
        owner_name, _, leaf = self.name.rpartition(".")
        owner = model.get_submodule(owner_name)
        if isinstance(self.place, Quantized):
            replace_weight(owner, leaf, self.place)
        elif leaf in owner._buffers:
            owner._buffers[leaf] = self.place
        else:
            owner._parameters[leaf] = nn.Parameter(self.place, requires_grad=False)


def attach(targets: list[Target], model: CausalLM) -> None:
    """Give a model on the meta device all its tensors, ready for inference."""
    for target in targets:
        target.attach(model)
    if model.config.tie_word_embeddings:
        table = model.model.embed_tokens.weight
        if isinstance(table, Quantized):
            replace_weight(model.lm_head, "weight", table)
        else:
            model.lm_head.weight = table
    for name, buffer in model.named_buffers():
        if buffer.is_meta:  # load_E: not part of a checkpoint
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, torch.zeros(buffer.shape))
    model.eval().requires_grad_(False)


def _kind(name: str, shape: torch.Size, quant: Kind | None) -> Kind | None:
    if quant is None:
        return None
    if name.endswith(_TABLES):
        return None if quant == "fp8" else "int8"
    if not name.endswith(_MATRICES):
        return None
    if quant == "fp8" and name.endswith("gate_up_proj") and shape[-2] // 2 % BLOCK:
        return None  # the squares of gate and up would overlap
    return quant


def _empty(kind: Kind, shape: torch.Size) -> Quantized:
    *front, outs, inner = shape
    groups, width = -(-inner // GROUP), GROUP
    if kind == "fp8":
        blocks = (*front, -(-outs // BLOCK), -(-inner // BLOCK))
        return Quantized(
            kind, torch.empty(shape, dtype=torch.float8_e4m3fn), torch.empty(blocks), inner
        )
    dtype = torch.int8 if kind == "int8" else torch.uint8
    data = torch.empty(*front, outs, groups * width // (1 if kind == "int8" else 2), dtype=dtype)
    return Quantized(kind, data, torch.empty(*front, outs, groups, dtype=torch.bfloat16), inner)


@dataclass(frozen=True)
class _Piece:
    """Rows [first, last) of a source, for the rows from `offset + first` on of a target."""

    target: Target
    source: str
    expert: int | None
    offset: int
    first: int
    last: int


def fill(targets: list[Target], checkpoint: Checkpoint, progress: Progress | None) -> None:
    """Read and convert all pieces on a few threads, in the order they lie on disk."""
    pieces = [
        _Piece(target, source.name, source.expert, source.offset, first, last)
        for target in targets
        for source in target.sources
        for first, last in checkpoint.pieces(source.name, BLOCK)
    ]
    entries = checkpoint.entries
    pieces.sort(key=lambda p: (entries[p.source].file, entries[p.source].begin, p.first))
    total = sum(entries[name].nbytes for name in {p.source for p in pieces})
    lock, done = Lock(), 0

    def run(piece: _Piece) -> None:
        nonlocal done
        rows = checkpoint.read(piece.source, piece.first, piece.last)
        scale = _scale(checkpoint, piece) if rows.dtype is torch.float8_e4m3fn else None
        piece.target.put(rows, scale, piece.expert, piece.offset + piece.first)
        with lock:
            done += rows.nbytes
            if progress is not None:
                progress(done, total)

    with ThreadPoolExecutor(_WORKERS) as pool:
        for finished in [pool.submit(run, piece) for piece in pieces]:
            finished.result()


def _scale(checkpoint: Checkpoint, piece: _Piece) -> Tensor:
    name = piece.source + SCALE
    scale = checkpoint.read(name, piece.first // BLOCK, -(-piece.last // BLOCK)).float()
    if not bool(torch.isfinite(scale).all()):
        raise WeightsError(f"{name} holds a number that is not finite. Download the file again.")
    return scale
