"""Muon against torch.optim.Muon, and what each parameter is given to."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ingle.models import build_model
from ingle.training.optim import Muon, OptimConfig, Optimizers, orthogonalise
from ingle.training.presets import model_preset


@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (8, 8)])
def test_orthogonalised_singular_values_lie_near_one(shape: tuple[int, int]) -> None:
    matrices = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.3
    assert values.max() < 1.3


@pytest.mark.parametrize("shape", [(24, 16), (16, 24)])
def test_muon_equals_torchs_muon_in_bf16_tolerance(shape: tuple[int, int]) -> None:
    """torch iterates in bf16, ours in fp32: the same direction, to bf16's precision."""
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(shape, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([{"params": [ours], "split": 1}], lr=0.02, momentum=0.95, weight_decay=0.1)
    oracle = torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.1, nesterov=True)
    for _ in range(5):
        gradient = torch.randn(shape, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        oracle.step()
    moved, expected = ours.detach() - start, theirs.detach() - start
    cosine = torch.cosine_similarity(moved.flatten(), expected.flatten(), 0)
    assert cosine > 0.999
    assert torch.allclose(moved.norm(), expected.norm(), rtol=0.02)


def test_a_stack_of_experts_is_updated_as_its_separate_matrices() -> None:
    generator = torch.Generator().manual_seed(2)
    stack = nn.Parameter(torch.randn(3, 16, 12, generator=generator))  # gate (8 rows) over up (8)
    parts = [nn.Parameter(m.clone()) for w in stack.detach() for m in w.split(8)]
    gradient = torch.randn(3, 16, 12, generator=generator)
    stack.grad = gradient.clone()
    for part, g in zip(parts, [m for w in gradient for m in w.split(8)], strict=True):
        part.grad = g.clone()
    Muon([{"params": [stack], "split": 2}], lr=0.02).step()
    Muon([{"params": parts, "split": 1}], lr=0.02).step()
    apart = torch.stack([p.detach() for p in parts]).view(3, 16, 12)
    assert torch.allclose(stack.detach(), apart, atol=1e-6)


def test_matrices_go_to_muon_and_the_rest_to_adamw() -> None:
    model = build_model(model_preset("nano"), kernels="reference")
    optimizers = Optimizers(model, OptimConfig())
    muon = {id(p) for g in optimizers.muon.param_groups for p in g["params"]}
    adam = {id(p) for g in optimizers.adam.param_groups for p in g["params"]}
    assert not muon & adam
    names = dict(model.named_parameters())
    assert len(muon | adam) == len(names)
    for name, p in names.items():
        head_or_table = name.endswith(("embed_tokens.weight", "lm_head.weight", "gate.weight"))
        assert (id(p) in muon) == (p.dim() >= 2 and not head_or_table), name
