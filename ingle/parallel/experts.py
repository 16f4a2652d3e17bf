"""Expert parallelism: each process holds some experts of a layer, and rows travel to them and back.

`ParallelExperts` stands where `Experts` stood, with the same signature, so the model does not know.
A row's expert is where its router sent it, whoever holds that expert; nothing is dropped.

Legend: N rows, D model width, E experts, K chosen experts, W processes, L = E / W experts of one,
M = N * K rows that are sent, A rows that arrive.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ingle.errors import ConfigError
from ingle.models.layers.feedforward import feed_forward
from ingle.models.layers.linear import plain
from ingle.models.layers.moe import Experts


class _Exchange(torch.autograd.Function):
    """Send rows to each process and receive from each; the gradient goes the way back."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup
    ) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return _all_to_all(rows, sent, received, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return _all_to_all(grads[0], ctx.received, ctx.sent, ctx.group), None, None, None


def _all_to_all(
    rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup
) -> Tensor:
    arrived = rows.new_empty(sum(received), *rows.shape[1:])
    dist.all_to_all_single(arrived, rows.contiguous(), received, sent, group)
    return arrived


class ParallelExperts(Experts):
    """The experts of a layer that this process of a group holds: as many as each of the others."""

    def __init__(self, whole: Experts, group: dist.ProcessGroup) -> None:
        nn.Module.__init__(self)
        self.group = group
        rank, size = dist.get_rank(group), dist.get_world_size(group)
        for name in ("gate_up_proj", "down_proj"):
            weight = getattr(whole, name).detach()
            if len(weight) % size:
                raise ConfigError(f"{len(weight)} experts cannot be shared by {size} processes.")
            self.register_parameter(name, nn.Parameter(weight.chunk(size)[rank].clone()))

    def forward(self, x_ND: Tensor, ids_NK: Tensor, weights_NK: Tensor, counts_E: Tensor) -> Tensor:
        """As `Experts.forward`, between two exchanges of rows."""
        top_k = ids_NK.shape[1]
        order_M = torch.argsort(ids_NK.flatten(), stable=True)  # by expert, and so by process
        sent_WL = counts_E.long().view(dist.get_world_size(self.group), -1)
        received_WL = torch.empty_like(sent_WL)
        dist.all_to_all_single(received_WL, sent_WL, group=self.group)
        sent, received = sent_WL.sum(1).tolist(), received_WL.sum(1).tolist()

        rows_AD = _Exchange.apply(x_ND[order_M // top_k], sent, received, self.group)
        weights_M1 = weights_NK.flatten()[order_M, None]
        weights_A1 = _Exchange.apply(weights_M1, sent, received, self.group)
        done_AD = self._local(rows_AD, weights_A1, received_WL)
        done_MD = _Exchange.apply(done_AD, received, sent, self.group)
        return done_MD[_inverse(order_M)].unflatten(0, (-1, top_k)).sum(1)

    def _local(self, rows_AD: Tensor, weights_A1: Tensor, received_WL: Tensor) -> Tensor:
        """Weighed results of the experts here. Rows lie by process, then by expert: the operator of
        training takes them so, grouped products want them by expert."""
        processes, local = received_WL.shape
        ids_A = torch.arange(local).repeat(processes).repeat_interleave(received_WL.flatten())
        gate_up, down = self.gate_up_proj, self.down_proj
        if self.training and plain(rows_AD):
            assert isinstance(gate_up, Tensor) and isinstance(down, Tensor)
            return feed_forward(rows_AD, [gate_up], [down], ids_A[:, None].int(), weights_A1)
        order_A = torch.argsort(ids_A, stable=True)
        ends_L = received_WL.sum(0).cumsum(0).int()
        gate, up = self.gate_and_up(rows_AD[order_A], ends_L)
        out_AD = self.down(F.silu(gate) * up, ends_L)[_inverse(order_A)]
        return out_AD * weights_A1.to(out_AD.dtype)


def _inverse(order: Tensor) -> Tensor:
    """The permutation that undoes `order`."""
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
