"""A checkpoint of a run that trains an adapter: its folder plus what is needed to go on."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ingle.errors import WeightsError
from ingle.models.causal_lm import CausalLM
from ingle.privacy.bom import BOM, make_bom
from ingle.privacy.digests import file_digest
from ingle.privacy.statement import PROVENANCE, canonical, make_statement, write_bytes
from ingle.training.finetuning.lora import LoraConfig, load_adapter, save_adapter
from ingle.training.optim import Optimizers
from ingle.training.origin import Origin, digests
from ingle.weights.adapter import CONFIG, WEIGHTS
from ingle.weights.safetensors import read_tensors, save_tensors

_STATE, _PROGRESS = "training.safetensors", "progress.json"


def save_adapter_checkpoint(
    folder: Path, model: CausalLM, lora: LoraConfig, optimizers: Optimizers, step: int,
    origin: Origin,
) -> None:  # fmt: skip
    """Write adapter, optimiser state, where they come from, and step into an empty folder."""
    save_adapter(model, lora, folder)
    tensors = optimizers.state_tensors() | {"step": torch.tensor(step)}
    save_tensors(folder / _STATE, tensors, {})
    _write_origin(folder, model, step, origin)
    (folder / _PROGRESS).write_text(json.dumps({"step": step}) + "\n", "utf-8")


def load_adapter_checkpoint(folder: Path, model: CausalLM, optimizers: Optimizers) -> int:
    """Restore adapters and optimisers in place; returns the finished steps, 0 for none."""
    if not (folder / _PROGRESS).is_file():
        return 0
    step = int(json.loads((folder / _PROGRESS).read_text("utf-8"))["step"])
    state = dict(read_tensors(folder / _STATE))
    if int(state.pop("step")) != step:
        raise WeightsError(f"{folder.name}: the checkpoint's files are of different steps.")
    load_adapter(model, folder)
    optimizers.load_state_tensors(state)
    return step


def _write_origin(folder: Path, model: CausalLM, step: int, origin: Origin) -> None:
    """As `Origin.write`, of an adapter's files; the bill's sizes are the base model's."""
    subjects = digests(folder, (CONFIG, WEIGHTS, _STATE))
    statement = make_statement(
        subjects, origin.parameters, step, origin.dependencies, origin.versions
    )
    write_bytes(folder / PROVENANCE, canonical(statement))
    bill = make_bom(
        origin.name, f"step-{step}", model.config.to_json(), subjects,
        file_digest(folder / PROVENANCE), origin.versions, origin.data,
    )  # fmt: skip
    write_bytes(folder / BOM, canonical(bill))
