"""Muon for matrices and stacks of expert matrices, AdamW for everything else.

Muon (Jordan et al., 2024; used by DeepSeek-V4): momentum, orthogonalised by Newton-Schulz, so that
every direction of a matrix moves by the same amount. torch.optim.Muon takes 2-D tensors only and is
the oracle of the test; here matrices of equal shape are orthogonalised in one batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ingle.models.causal_lm import CausalLM
from ingle.parallel.layout import Layout

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices_nRC: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrix of each of a batch, by a quintic Newton-Schulz iteration.

    Singular values end near 1 (roughly 0.7 to 1.2), which is all Muon needs.
    """
    a, b, c = _COEFFICIENTS
    x = matrices_nRC.mT if matrices_nRC.shape[-2] > matrices_nRC.shape[-1] else matrices_nRC
    x = x / x.flatten(1).norm(dim=-1).clamp(min=1e-7)[:, None, None]
    for _ in range(steps):  # x <- a x + (b gram + c gram gram) x
        gram = x @ x.mT
        x = x.baddbmm(gram.baddbmm(gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if matrices_nRC.shape[-2] > matrices_nRC.shape[-1] else x


class Muon(torch.optim.Optimizer):
    """Each parameter is a matrix or a stack of them; `split` matrices lie stacked in its rows.

    An update is lr * sqrt(max(1, rows / columns)) * orthogonalised Nesterov momentum. Of a matrix
    whose rows lie in several processes each of them orthogonalises the whole and keeps its rows:
    `layout` says how to get there by a parameter's name, and `names` holds those.
    """

    def __init__(
        self, groups: list[dict], lr: float, momentum: float = 0.95, weight_decay: float = 0.0,
        layout: Layout | None = None, names: dict[Tensor, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.layout, self.names = layout, names or {}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        alike: dict[tuple[int, int, float, float], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for group in self.param_groups:
            learning = [p for p in group["params"] if p.grad is not None]
            for p, nesterov in zip(learning, self._nesterov(learning, group), strict=True):
                if self.layout is not None:
                    nesterov = self.layout.matrices(self.names[p], nesterov)
                rows, columns = nesterov.shape[-2] // group["split"], nesterov.shape[-1]
                count = nesterov.numel() // (rows * columns)  # of a stack none may be here
                key = rows, columns, group["lr"], group["weight_decay"]
                alike[key].append((p, nesterov.reshape(count, rows, columns)))
        for (rows, columns, lr, decay), entries in alike.items():
            updates = orthogonalise(torch.cat([update for _, update in entries]))
            scale = max(1.0, rows / columns) ** 0.5
            mine = []
            for (p, _), update in zip(
                entries, updates.split([len(u) for _, u in entries]), strict=True
            ):
                if self.layout is not None:
                    whole = update.reshape(-1, columns) if p.dim() == 2 else update
                    update = self.layout.part_of_matrices(self.names[p], whole)
                mine.append(update.reshape(p.shape))
            parameters = [p for p, _ in entries]
            torch._foreach_mul_(parameters, 1 - lr * decay)
            torch._foreach_add_(parameters, mine, alpha=-lr * scale)

    def _nesterov(self, learning: list[Tensor], group: dict) -> Sequence[Tensor]:
        """What is orthogonalised of each parameter; its momentum moves towards its gradient."""
        if not learning:
            return []
        for p in learning:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in learning]
        gradients = [p.grad for p in learning if p.grad is not None]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        return torch._foreach_lerp(gradients, momenta, group["momentum"])


@dataclass(frozen=True)
class OptimConfig:
    """Peak learning rates; a schedule multiplies all of them. muon=False: AdamW for matrices too,
    as reinforcement learning wants small steps where the gradient is small, and every step of Muon
    is as long as the rate says."""

    muon: bool = True
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    weight_decay: float = 0.01
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.95)


def rate_factor(step: int, steps: int, warmup: int, decay: float) -> float:
    """Linear warm-up over `warmup` steps, then 1, then linear decay to 0 over the last `decay`
    share of the steps (warmup-stable-decay); 0 keeps it at 1."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    left = (steps - step) / max(1.0, decay * steps)
    return min(rise, left) if decay else rise


class Optimizers:
    """Both optimisers behind one `step`; state is saved and restored as plain tensors.

    layout: which part of the model this process updates (default: all of it).
    """

    def __init__(self, model: CausalLM, config: OptimConfig, layout: Layout | None = None) -> None:
        self.config, self.layout = config, layout or Layout(model)
        parameters = self.layout.parameters()
        self._names: dict[Tensor, str] = {p: name for name, p in parameters.items()}
        matrices, stacks, rest = [], [], []
        for name, p in parameters.items():
            if not config.muon:
                rest.append(p)
            elif name.endswith("experts.gate_up_proj"):
                stacks.append(p)
            elif p.dim() >= 2 and not name.endswith(
                ("embed_tokens.weight", "head.weight", "gate.weight")
            ):
                matrices.append(p)
            else:
                rest.append(p)
        groups = [{"params": matrices, "split": 1}, {"params": stacks, "split": 2}]
        self.muon = Muon(
            groups, config.muon_lr, config.momentum, config.weight_decay, self.layout, self._names
        )
        self.adam = torch.optim.AdamW(
            rest, config.adam_lr, config.betas, eps=1e-10, weight_decay=0.0, foreach=True
        )

    def step(self, scale: float) -> None:
        """One update with learning rates multiplied by `scale`; gradients are cleared."""
        for optimizer, peak in ((self.muon, self.config.muon_lr), (self.adam, self.config.adam_lr)):
            for group in optimizer.param_groups:
                group["lr"] = peak * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """Every state tensor, whole, under `<parameter>/<field>`; collective (layout.py)."""
        return {
            f"{(name := self._names[p])}/{field}":
                self.layout.whole(name, value) if value.dim() else value
            for optimizer in (self.muon, self.adam)
            for p, state in optimizer.state.items()
            for field, value in state.items()
        }  # fmt: skip

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state_tensors` gave, in any number of processes."""
        by_name = {name: p for p, name in self._names.items()}
        for key, value in tensors.items():
            name, field = key.rsplit("/", 1)
            p = by_name[name]
            owner = self.muon if field == "momentum" else self.adam
            part = self.layout.part(name, value) if value.dim() else value
            owner.state[p][field] = part.clone()
