"""Folder -> model: every tensor is read in pieces, converted or quantised, and put in its place.

At no time is more in memory than the model itself and a few pieces.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor, nn

from ingle.errors import WeightsError
from ingle.kernels.quantized import BLOCK, GROUP, Kind, Quantized, dequantise_blocks
from ingle.models.causal_lm import CausalLM
from ingle.models.config import ModelConfig
from ingle.models.deepseek_v3 import DeepseekV3Config
from ingle.models.layers.block import MTPLayer
from ingle.models.layers.linear import Embedding, Linear, replace_weight
from ingle.models.read import read_config
from ingle.weights.cache import cache_file, read_cache, write_cache
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
_UNUSED = ("rotary_emb.inv_freq",)  # old checkpoints carry it; it follows from the config
_WORKERS = min(8, os.cpu_count() or 1)


def load_model(
    path: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    kernels: str = "auto",
    quant: Kind | None = None,
    progress: Progress | None = None,
    keep: bool = False,
) -> CausalLM:
    """Load a model folder for inference: `model(tokens_BT) -> logits_BTV`.

    path: a folder in Hugging Face layout, None for the shipped reasoner. dtype: of what is not
    quantised. quant: how matrices are kept; None keeps all in dtype. progress: told how many bytes
    have been read. keep: write quantised weights into the cache (weights/cache.py), or read them
    from there. Raises ModelNotFoundError, ConfigError or WeightsError.
    """
    from ingle.models import resolve_model

    folder = resolve_model(path)
    config = read_config(folder)
    with Checkpoint(folder) as checkpoint:
        mtp_prefix = f"model.layers.{config.num_hidden_layers}."
        if config.mtp_layers and not any(n.startswith(mtp_prefix) for n in checkpoint.entries):
            # a checkpoint may announce its MTP module and leave it out (transformers drops it)
            config = _without_mtp(config)
        with torch.device("meta"):
            model = CausalLM(config, kernels)
        ignored = _untie_mtp(model, checkpoint)
        targets = [_Target(name, tensor, dtype, quant) for name, tensor in _own_tensors(model)]
        _check_names(targets, checkpoint, ignored)
        places = {target.name: target.place for target in targets}
        kept = cache_file(checkpoint.files, f"{quant}:{dtype}") if keep and quant else None
        if kept is not None and kept.is_file():
            read_cache(kept, places, progress)
        else:
            _fill(targets, checkpoint, progress)
            if kept is not None:
                write_cache(kept, places)
    for target in targets:
        target.attach(model)
    if config.tie_word_embeddings:
        table = model.model.embed_tokens.weight
        if isinstance(table, Quantized):
            replace_weight(model.lm_head, "weight", table)
        else:
            model.lm_head.weight = table
    for name, buffer in model.named_buffers():
        if buffer.is_meta:  # load_E: not part of a checkpoint
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, torch.zeros(buffer.shape))
    return model.eval().requires_grad_(False)


class _Target:
    """One tensor of the model: where its rows come from and how they are kept."""

    def __init__(self, name: str, shape_of: Tensor, dtype: torch.dtype, quant: Kind | None) -> None:
        self.name, self.shape = name, shape_of.shape
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
            made = quantise(wide, place.kind)
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

    target: _Target
    source: str
    expert: int | None
    offset: int
    first: int
    last: int


def _fill(targets: list[_Target], checkpoint: Checkpoint, progress: Progress | None) -> None:
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


def _own_tensors(model: CausalLM) -> list[tuple[str, Tensor]]:
    """Parameters and buffers that a checkpoint must have, shared ones once."""
    persistent = model.state_dict().keys()
    found = dict([*model.named_parameters(), *model.named_buffers()])
    if model.config.tie_word_embeddings:  # the one table has the embedding's name in the file
        found["model.embed_tokens.weight"] = found.pop("lm_head.weight")
    return [(name, tensor) for name, tensor in found.items() if name in persistent]


def _check_names(targets: list[_Target], checkpoint: Checkpoint, ignored: set[str]) -> None:
    """Nothing missing, nothing misshapen, nothing left over."""
    entries = checkpoint.entries
    needed = {source.name: source.shape for target in targets for source in target.sources}
    scales = {name + SCALE for name in needed if _is_fp8(checkpoint, name)}
    if missing := sorted((needed.keys() | scales) - entries.keys()):
        raise WeightsError(f"The weights lack {missing[0]} ({len(missing)} such tensors).")
    extra = sorted(
        name for name in entries.keys() - needed.keys() - scales - ignored
        if not name.endswith(_UNUSED) and name != "lm_head.weight"
    )  # fmt: skip
    if extra:
        raise WeightsError(f"The weights hold unknown {extra[0]} ({len(extra)} such tensors).")
    for name, shape in needed.items():
        expected = {name: tuple(shape)}
        if name + SCALE in scales:
            expected[name + SCALE] = (-(-shape[0] // BLOCK), -(-shape[1] // BLOCK))
        for part, wanted in expected.items():
            if entries[part].shape != wanted:
                raise WeightsError(
                    f"{part} has shape {list(entries[part].shape)}, the config asks for "
                    f"{list(wanted)}."
                )
        if not entries[name].dtype.is_floating_point:
            raise WeightsError(f"{name} holds {entries[name].dtype}, not floating-point numbers.")


def _is_fp8(checkpoint: Checkpoint, name: str) -> bool:
    return name in checkpoint.entries and checkpoint.entries[name].dtype is torch.float8_e4m3fn


def _without_mtp(config: ModelConfig) -> ModelConfig:
    assert isinstance(config, DeepseekV3Config)
    return replace(config, num_nextn_predict_layers=0)


def _untie_mtp(model: CausalLM, checkpoint: Checkpoint) -> set[str]:
    """An MTP layer shares embedding and head with the model, unless its copies in the file differ.

    Returns the names of copies that are not needed.
    """
    c, copies = model.config, set()
    for index in range(c.num_hidden_layers, c.num_hidden_layers + c.mtp_layers):
        layer = model.model.layers[index]
        assert isinstance(layer, MTPLayer)
        prefix = f"model.layers.{index}."
        for name, main in (
            ("embed_tokens.weight", "model.embed_tokens.weight"),
            ("shared_head.head.weight", "lm_head.weight"),
        ):
            if prefix + name not in checkpoint.entries:
                continue
            if _same(checkpoint, prefix + name, main):
                copies.add(prefix + name)
                continue
            with torch.device("meta"):
                if name.startswith("embed"):
                    layer.embed_tokens = Embedding(c.vocab_size, c.hidden_size)
                else:
                    layer.shared_head.head = Linear(c.hidden_size, c.vocab_size)
    return copies


def _same(checkpoint: Checkpoint, one: str, other: str) -> bool:
    a, b = checkpoint.entries[one], checkpoint.entries.get(other)
    if b is None or a.shape != b.shape or a.dtype is not b.dtype:
        return False
    return all(
        torch.equal(checkpoint.read(one, *piece), checkpoint.read(other, *piece))
        for piece in checkpoint.pieces(one)
    )
