"""Where the weights of a loaded model end up: in memory, or with the experts left on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ingle.kernels.quantized import Quantized
from ingle.models.causal_lm import CausalLM
from ingle.models.config import WithExperts
from ingle.models.fill import Progress, Target, fill
from ingle.models.layers.moe import MoE
from ingle.weights.cache import Place, build_cache, read_cache, write_cache
from ingle.weights.checkpoint import Checkpoint
from ingle.weights.paging import LayerExperts, MappedWeights


def fill_in_memory(
    targets: list[Target], checkpoint: Checkpoint, kept: Path | None, progress: Progress | None
) -> None:
    """Read all tensors, from the file of quantised weights where there is one."""
    places = {target.name: target.place for target in targets}
    if kept is not None and kept.is_file():
        read_cache(kept, places, progress)
        return
    fill(targets, checkpoint, progress)
    if kept is not None:
        write_cache(kept, places)


def fill_paged(
    targets: list[Target], checkpoint: Checkpoint, kept: Path, progress: Progress | None
) -> MappedWeights:
    """Leave experts in the file of quantised weights, made first where there is none, and read the
    rest. The targets' places are on the meta device."""
    places = {target.name: target.place for target in targets}
    if not kept.is_file():
        with build_cache(kept, places) as on_disk:
            for target in targets:
                target.place = on_disk[target.name]
            fill(targets, checkpoint, progress)
    file = MappedWeights(kept)
    mapped = file.places({name: place for name, place in places.items() if _is_stack(name)})
    in_memory: dict[str, Place] = {}
    for target in targets:
        place = mapped.get(target.name, places[target.name])
        if target.name not in mapped:
            in_memory[target.name] = place = _on_cpu(place)
        elif isinstance(place, Quantized):  # scales are small, and read with every expert
            scale = in_memory[f"{target.name}:scale"] = torch.empty_like(place.scale)
            place = Quantized(place.kind, place.data, scale, place.inner)
        target.place = place
    read_cache(kept, in_memory, progress)
    return file


def _is_stack(name: str) -> bool:
    return ".mlp.experts." in name


def _on_cpu(place: Place) -> Place:
    if isinstance(place, Tensor):
        return torch.empty_like(place, device="cpu")
    data, scale = (torch.empty_like(x, device="cpu") for x in (place.data, place.scale))
    return Quantized(place.kind, data, scale, place.inner)


def page_experts(model: CausalLM, file: MappedWeights, limit: int) -> None:
    """Let every mixture layer keep its share of `limit` bytes of experts in memory."""
    layers = [module for module in model.modules() if isinstance(module, MoE)]
    assert isinstance(model.config, WithExperts)
    for moe in layers:
        stacks = []
        for weight in (moe.experts.gate_up_proj, moe.experts.down_proj):
            data = weight.data
            stacks.append((file.offset(data), data[0].nbytes))
        each = sum(size for _, size in stacks)
        capacity = max(model.config.num_experts_per_tok, limit // len(layers) // each)
        moe.paged = LayerExperts(file, stacks, min(capacity, len(data)))
        file.stats.limit += moe.paged.capacity * each
        file.stats.experts += len(data) * each
    model.mapped = file
