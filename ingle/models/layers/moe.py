"""DeepSeekMoE: routing, grouped experts, shared expert; and the dense SwiGLU of the first layers.

Legend: N rows, D model width, E experts, K chosen experts, F expert width, J = 2F.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ingle.kernels import reference
from ingle.kernels.quantized import Quantized
from ingle.models.config import WithExperts
from ingle.models.layers.feedforward import feed_forward
from ingle.models.layers.linear import Linear, plain
from ingle.weights.paging import LayerExperts


@torch.library.custom_op("ingle::grouped_linear", mutates_args=())
def grouped_linear(x_MI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    """`x @ weight[e].T` for the rows of each expert e, which end at ends_E[e] (int32).

    A named operator, because torch.compile cannot trace F.grouped_mm in fp32.
    """
    return F.grouped_mm(x_MI, weight_EOI.transpose(1, 2), offs=ends_E)


@grouped_linear.register_fake
def _(x_MI: Tensor, weight_EOI: Tensor, ends_E: Tensor) -> Tensor:
    return x_MI.new_empty(x_MI.shape[0], weight_EOI.shape[1])


@torch.library.custom_op("ingle::grouped_outer", mutates_args=())
def grouped_outer(grad_MO: Tensor, x_MI: Tensor, ends_E: Tensor) -> Tensor:
    """`grad.T @ x` over the rows of each expert: the weights' gradient [E, O, I]."""
    return F.grouped_mm(grad_MO.T, x_MI, offs=ends_E)


@grouped_outer.register_fake
def _(grad_MO: Tensor, x_MI: Tensor, ends_E: Tensor) -> Tensor:
    return x_MI.new_empty(ends_E.shape[0], grad_MO.shape[1], x_MI.shape[1])


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_MO: Tensor) -> tuple[Tensor, Tensor | None, None]:
    x_MI, weight_EOI, ends_E = ctx.saved_tensors
    grad_MO = grad_MO.contiguous()
    x_grad = grouped_linear(grad_MO, weight_EOI.transpose(1, 2).contiguous(), ends_E)
    learns = ctx.needs_input_grad[1]  # not under an adapter
    return x_grad, grouped_outer(grad_MO, x_MI, ends_E) if learns else None, None


grouped_linear.register_autograd(_backward, setup_context=_save)


class MLP(nn.Module):
    """SwiGLU feed-forward: down( silu(gate x) * up x )."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = Linear(width, inner)
        self.up_proj = Linear(width, inner)
        self.down_proj = Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and plain(x, self.gate_proj, self.up_proj, self.down_proj):
            return self._at_once(x.flatten(0, -2)).view_as(x)
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))

    def _at_once(self, x_ND: Tensor) -> Tensor:
        """As a mixture of one expert, which every row chooses."""
        gate_up_1JD, down_1DF = self.stacked(self.down_proj.weight.shape[1])
        ids_N1, weights_N1 = torch.zeros(len(x_ND), 1).int(), x_ND.new_ones(len(x_ND), 1)
        return feed_forward(x_ND, [gate_up_1JD], [down_1DF], ids_N1, weights_N1)

    def stacked(self, inner: int) -> tuple[Tensor, Tensor]:
        """The weights as those of experts of that inner width, whose sum it is: [E, J, D] and
        [E, D, F]."""
        gate, up, down = (m.weight for m in (self.gate_proj, self.up_proj, self.down_proj))
        assert isinstance(gate, Tensor) and isinstance(up, Tensor) and isinstance(down, Tensor)
        shape = down.shape[1] // inner, inner
        gate_up = torch.cat([m.unflatten(0, shape) for m in (gate, up)], 1)
        return gate_up, down.unflatten(1, shape).transpose(0, 1)

    def step(self, x_ND: Tensor, k: ModuleType) -> Tensor:
        return k.mlp(x_ND, self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)


class Router(nn.Module):
    """Chooses experts; V3's `e_score_correction_bias` moves the choice but not the weights.

    No gradient reaches the bias: training moves it by the sign of each expert's load error
    (auxiliary-loss-free balancing, arXiv 2408.15664).
    """

    def __init__(self, config: WithExperts) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        self.e_score_correction_bias: Tensor | None
        bias = torch.zeros(config.n_routed_experts) if config.router_bias else None
        self.register_buffer("e_score_correction_bias", bias)

    def step(self, x_ND: Tensor, k: ModuleType) -> tuple[Tensor, Tensor]:
        c = self.config
        return k.route(
            x_ND, self.weight, self.e_score_correction_bias, c.n_group, c.topk_group,
            c.num_experts_per_tok, c.norm_topk_prob, c.routed_scaling_factor, c.scoring,
        )  # fmt: skip

    def forward(self, x_ND: Tensor, routes_NK: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Ids and weights. routes_NK: experts chosen elsewhere (int32), which are weighed instead
        of the router's own choice; rows of -1 leave it the choice."""
        ids_NK, weights_NK = self.step(x_ND, reference)
        if routes_NK is None:
            return ids_NK, weights_NK
        c, ids_NK = self.config, torch.where(routes_NK < 0, ids_NK, routes_NK)
        return ids_NK, reference.route_to(
            x_ND, self.weight, ids_NK, c.norm_topk_prob, c.routed_scaling_factor, c.scoring
        )


class Experts(nn.Module):
    """All routed experts of a layer as two 3-D weights; gate rows lie above up rows."""

    def __init__(self, config: WithExperts) -> None:
        super().__init__()
        self.gate_up_proj: nn.Parameter | Quantized
        self.down_proj: nn.Parameter | Quantized
        experts, width, inner = (
            config.n_routed_experts, config.hidden_size, config.moe_intermediate_size,
        )  # fmt: skip
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * inner, width))
        self.down_proj = nn.Parameter(torch.empty(experts, width, inner))

    def forward(self, x_ND: Tensor, ids_NK: Tensor, weights_NK: Tensor, counts_E: Tensor) -> Tensor:
        """Sort rows by expert, one grouped product for each of the two weights, scatter back; in
        fp32 training on a CPU all of that as one operator.

        counts_E: rows of each expert. Nothing is dropped and nothing is padded.
        """
        gate_up, down = self.gate_up_proj, self.down_proj
        if isinstance(gate_up, Quantized) or isinstance(down, Quantized):
            return reference.experts(x_ND, ids_NK, weights_NK, gate_up, down)
        if self.training and type(self) is Experts and plain(x_ND):
            return feed_forward(x_ND, [gate_up], [down], ids_NK, weights_NK)
        top_k = ids_NK.shape[1]
        order = torch.argsort(ids_NK.flatten(), stable=True)
        ends_E = counts_E.cumsum(0).int()
        rows_MD = x_ND[order // top_k]
        gate, up = self.gate_and_up(rows_MD, ends_E)
        out_MD = self.down(F.silu(gate) * up, ends_E)
        out_MD = out_MD * weights_NK.flatten()[order, None].to(out_MD.dtype)
        places = torch.arange(order.shape[0], device=order.device)
        back = torch.empty_like(order).scatter_(0, order, places)
        return out_MD[back].unflatten(0, (-1, top_k)).sum(1)

    def gate_and_up(self, rows_MD: Tensor, ends_E: Tensor) -> tuple[Tensor, Tensor]:
        """Both inner products [M, F] of sorted rows."""
        assert isinstance(self.gate_up_proj, Tensor)
        gate, up = grouped_linear(rows_MD, self.gate_up_proj, ends_E).chunk(2, -1)
        return gate, up

    def down(self, inner_MF: Tensor, ends_E: Tensor) -> Tensor:
        """The outer product [M, D] of sorted rows."""
        assert isinstance(self.down_proj, Tensor)
        return grouped_linear(inner_MF, self.down_proj, ends_E)


class MoE(nn.Module):
    """`sum_e w_e E_e(x) + E_shared(x)` (arXiv 2412.19437, section 2.1.2)."""

    def __init__(self, config: WithExperts) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config)
        shared = config.moe_intermediate_size * config.n_shared_experts
        self.shared_experts = MLP(config.hidden_size, shared)
        self.load_E: Tensor  # tokens each expert received since the trainer last read and zeroed it
        self.register_buffer("load_E", torch.zeros(config.n_routed_experts), persistent=False)
        self.paged: LayerExperts | None = None  # set where the experts stay on disk

    def forward(self, x: Tensor, routes_NK: Tensor | None = None) -> Tensor:
        """routes_NK: see `Router.forward`."""
        x_ND = x.flatten(0, -2)
        ids_NK, weights_NK = self.gate(x_ND, routes_NK)
        counts_E = torch.zeros_like(self.load_E).scatter_add_(
            0, ids_NK.flatten().long(), torch.ones(ids_NK.numel(), device=x.device)
        )
        if self.training:
            self.load_E += counts_E
        if self._at_once(x_ND):
            return self._all_experts(x_ND, ids_NK, weights_NK).view_as(x)
        y_ND = self.experts(x_ND, ids_NK, weights_NK, counts_E)
        return (y_ND + self.shared_experts(x_ND)).view_as(x)

    def _at_once(self, x_ND: Tensor) -> bool:
        """Whether `_all_experts` computes this mixture."""
        shared = self.shared_experts
        matrices = shared.gate_proj, shared.up_proj, shared.down_proj
        whole = type(self.experts) is Experts and isinstance(self.experts.down_proj, Tensor)
        return self.training and whole and plain(x_ND, *matrices)

    def _all_experts(self, x_ND: Tensor, ids_NK: Tensor, weights_NK: Tensor) -> Tensor:
        """The shared experts as the last ones of the mixture, which every row chooses: so their
        results are added last, as where they are computed by themselves."""
        routed_up, routed_down = self.experts.gate_up_proj, self.experts.down_proj
        gate_up_SJD, down_SDF = self.shared_experts.stacked(routed_down.shape[-1])
        assert isinstance(routed_up, Tensor) and isinstance(routed_down, Tensor)
        first, count = len(routed_up), len(down_SDF)
        shared = torch.arange(first, first + count, dtype=torch.int32).expand(len(x_ND), -1)
        ids = torch.cat([ids_NK, shared], -1)
        weights = torch.cat([weights_NK, weights_NK.new_ones(shared.shape)], -1)
        return feed_forward(x_ND, [routed_up, gate_up_SJD], [routed_down, down_SDF], ids, weights)

    def step(self, x_ND: Tensor, k: ModuleType, chosen_NK: Tensor | None = None) -> Tensor:
        """chosen_NK: where to write the experts of each row, if anyone asks."""
        ids_NK, weights_NK = self.gate.step(x_ND, k)
        if chosen_NK is not None:
            chosen_NK.copy_(ids_NK)
        with self.paged.holding(ids_NK) if self.paged else nullcontext():
            routed = k.experts(
                x_ND, ids_NK, weights_NK, self.experts.gate_up_proj, self.experts.down_proj
            )
        return routed + self.shared_experts.step(x_ND, k)
