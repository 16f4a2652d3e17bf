"""A model's parameters divided among processes by FSDP2, and its experts by expert parallelism.

A layer is gathered while it computes and given back after; its gradient arrives summed, each
process keeping its rows. Losses are normalised over the whole step (training/loss.py), so gradients
are summed and never averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from ingle.models.causal_lm import CausalLM
from ingle.models.layers.block import MTPLayer
from ingle.models.layers.moe import MoE
from ingle.parallel.experts import ParallelExperts
from ingle.parallel.layout import Layout, Precision
from ingle.parallel.mesh import World

T = TypeVar("T")


class Learner(nn.Module):
    """The root of what is sharded: a whole loss is one forward pass of it, whatever parts of the
    model that calls."""

    def __init__(self, model: CausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, loss: Callable[..., tuple[Tensor, Tensor]], batch: Any, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        return loss(self.model, batch, counts)


class Sharded(Layout):
    """Every parameter a DTensor in rows; experts first divided among the processes that share them.

    Optimisers see plain tensors: the rows that are here.
    """

    def __init__(self, model: CausalLM, world: World, precision: Precision) -> None:
        super().__init__(model)
        self.world, self.rank, self.size = world, world.rank, world.size
        mixtures = [module for module in model.modules() if isinstance(module, MoE)]
        self.loads = [module.load_E for module in mixtures]
        self.learner = _wrap(model, mixtures, world, precision)
        self.divided = {
            id(p) for m in model.modules() if isinstance(m, ParallelExperts) for p in m.parameters()
        }
        self._sharded = {
            name: p for name, p in model.named_parameters(remove_duplicate=False)
        }  # fmt: skip
        with torch.no_grad():
            self._parts = {name: _local(p) for name, p in self._sharded.items()}
        self._whole_model: CausalLM | None = None

    def parameters(self) -> dict[str, Tensor]:
        return {name: self._parts[name] for name, _ in self.model.named_parameters()}

    def state(self) -> dict[str, Tensor]:
        return self.model.state_dict() | self._parts

    def part(self, name: str, whole: Tensor) -> Tensor:
        if (p := self._sharded.get(name)) is None:
            return whole  # a router's bias
        if id(p) in self.divided:
            experts = self.world.experts
            whole = whole.chunk(experts.size())[experts.get_local_rank()]
        assert isinstance(p, DTensor)
        return _rows(whole, p.device_mesh.size(), p.device_mesh.get_local_rank())

    def whole(self, name: str, part: Tensor) -> Tensor:
        p = self._sharded[name]
        assert isinstance(p, DTensor)
        found = DTensor.from_local(
            part, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()
        ).full_tensor()
        if id(p) not in self.divided:
            return found
        experts = self.world.experts
        stacks = [torch.empty_like(found) for _ in range(experts.size())]
        dist.all_gather(stacks, found.contiguous(), group=experts.get_group())
        return torch.cat(stacks)

    def matrices(self, name: str, part: Tensor) -> Tensor:
        return part if part.dim() > 2 else self.whole(name, part)  # rows of a stack are matrices

    def part_of_matrices(self, name: str, matrices: Tensor) -> Tensor:
        return matrices if matrices.dim() > 2 else self.part(name, matrices)

    def take_gradients(self) -> None:
        """Put what FSDP has summed up where the optimisers look."""
        for name, p in self.model.named_parameters():
            if p.grad is not None:
                part = self._parts[name]
                found = _local(p.grad)
                part.grad = found if part.grad is None else part.grad + found
                p.grad = None

    def clip(self, limit: float) -> float:
        parts = [part for part in self.parameters().values() if part.grad is not None]
        norms = [torch.linalg.vector_norm(part.grad) for part in parts if part.grad is not None]
        square = torch.stack([norm.double().square() for norm in norms]).sum()
        dist.all_reduce(square)  # every number lies in one process only
        norm = float(square.sqrt())
        for part in parts:
            if part.grad is not None:
                part.grad.mul_(min(1.0, limit / (norm + 1e-6)))
        return norm

    @torch.no_grad()
    def assembled(self, everywhere: bool = True) -> CausalLM:
        keeps = everywhere or self.leads
        if self._whole_model is None and keeps:
            self._whole_model = CausalLM(self.model.config, "reference")
            self._whole_model.kernels = self.model.kernels
        target = self._whole_model
        into = {} if target is None else dict(target.named_parameters())
        for name, part in self.parameters().items():
            found = self.whole(name, part)
            if keeps:
                into[name].copy_(found)  # in place: an engine knows the addresses
        if target is not None and keeps:
            buffers = dict(self.model.named_buffers())
            for name, buffer in target.named_buffers():
                buffer.copy_(buffers[name])
        return self.model if target is None else target

    def exchange(self, mine: list[T]) -> list[T]:
        shares: list[list[T]] = [[] for _ in range(self.size)]
        dist.all_gather_object(shares, mine)
        longest = max(map(len, shares))
        return [share[i] for i in range(longest) for share in shares if i < len(share)]

    def wait(self) -> None:
        dist.barrier()


def _wrap(model: CausalLM, mixtures: list[MoE], world: World, precision: Precision) -> Learner:
    """A unit for each layer, one for its experts where processes share them, one for the rest."""
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if precision == "bf16" else None, reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # rotary tables stay fp32; the rest is what it is already
    )  # fmt: skip
    if world.experts.size() > 1:
        for mixture in mixtures:
            mixture.experts = ParallelExperts(mixture.experts, world.experts.get_group())
            fully_shard(mixture.experts, mesh=world.replicas, mp_policy=policy)
    for layer in model.model.layers:
        others: set[nn.Parameter] = set()
        if isinstance(layer, MTPLayer):  # it names embedding and head, which are the root's
            others = {*layer.embed_tokens.parameters(), *layer.shared_head.head.parameters()}
            fully_shard(layer.shared_head.norm, mesh=world.all, mp_policy=policy)
        fully_shard(layer, mesh=world.all, mp_policy=policy, ignored_params=others)
        if isinstance(layer, MTPLayer):
            register_fsdp_forward_method(layer, "merge")
    learner = Learner(model)
    fully_shard(learner, mesh=world.all, mp_policy=policy)
    for module in learner.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)
    return learner


def _local(tensor: Tensor) -> Tensor:
    """The rows of a DTensor that are here, sharing its memory."""
    assert isinstance(tensor, DTensor)
    with torch.no_grad():
        return tensor.to_local()


def _rows(whole: Tensor, count: int, index: int) -> Tensor:
    """Part `index` of `count`, as FSDP cuts dimension 0: the last ones may be empty."""
    chunks = whole.chunk(count)
    return chunks[index] if index < len(chunks) else whole[:0]
