"""A checkpoint is a model folder plus what is needed to go on: optimiser tensors and the step.

It holds whole tensors, however many processes have made it, so any number can go on from it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from torch import Tensor

from ingle.errors import WeightsError
from ingle.models import save_model
from ingle.models.causal_lm import CausalLM
from ingle.parallel.layout import Layout
from ingle.privacy.statement import CHECKPOINT_FILES
from ingle.training.balance import expert_loads
from ingle.training.commit import finish, replacing
from ingle.training.optim import Optimizers
from ingle.training.origin import Origin
from ingle.weights.safetensors import read_tensors, save_tensors

_STATE = "training.safetensors"
_PROGRESS = "progress.json"


def save_checkpoint(
    folder: Path, model: CausalLM, optimizers: Optimizers, step: int, origin: Origin
) -> None:
    """Write weights, optimiser state, where they come from, and step, all or none: NotSavedError on
    a full disk leaves the last checkpoint whole.

    Of many processes all have to call it; the one that leads writes, and then all go on.
    """
    layout = optimizers.layout
    tensors = optimizers.state_tensors() | {"step": torch.tensor(step)}
    model = layout.assembled(everywhere=False)
    if layout.leads:
        _write(folder, model, tensors, step, origin)
    layout.wait()


def _write(
    folder: Path, model: CausalLM, tensors: dict[str, Tensor], step: int, origin: Origin
) -> None:
    tensors |= {f"load/{i}": load.cpu() for i, load in enumerate(expert_loads(model))}
    with replacing(folder) as new:
        save_model(model, new, torch.float32)
        save_tensors(new / _STATE, tensors, {})
        for name in CHECKPOINT_FILES:  # the statement names the tokenizer's, too
            if (folder / name).is_file() and not (new / name).exists():
                shutil.copyfile(folder / name, new / name)
        origin.write(new, step)
        (new / _PROGRESS).write_text(json.dumps({"step": step}) + "\n", "utf-8")


def load_checkpoint(folder: Path, model: CausalLM, optimizers: Optimizers) -> int:
    """Restore model and optimisers in place; returns the number of finished steps, 0 for none."""
    layout = optimizers.layout
    if layout.leads:
        finish(folder)
    layout.wait()
    if not (folder / _PROGRESS).exists():
        return 0
    step = int(json.loads((folder / _PROGRESS).read_text("utf-8"))["step"])
    state = dict(read_tensors(folder / _STATE))
    if int(state.pop("step")) != step:
        raise WeightsError(f"{folder.name}: the checkpoint was interrupted while being written.")
    load_weights(folder, model, layout)
    for i, load in enumerate(expert_loads(model)):
        load.copy_(state.pop(f"load/{i}"))
    optimizers.load_state_tensors(state)
    return step


def load_weights(folder: Path, model: CausalLM, layout: Layout | None = None) -> None:
    """Copy a folder's weights into a model that is being trained; into the part of it that is here,
    where a layout says that it is divided."""
    from ingle.models import load_model

    source = load_model(folder, torch.float32, kernels="reference")
    layout = layout or Layout(model)
    with torch.no_grad():
        for (name, target), (other, whole) in zip(
            layout.state().items(), source.state_dict().items(), strict=True
        ):
            value = layout.part(name, whole)
            if name != other or target.shape != value.shape:
                raise WeightsError(f"{folder.name} holds another model: {other} where {name} is.")
            target.copy_(value)
