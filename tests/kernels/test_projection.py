"""Matrices of training applied to the same rows: native against reference and autograd."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ingle.kernels import cpu, reference
from ingle.models.layers.linear import Linear, both
from ingle.models.layers.projection import projections
from tests.kernels.cases import near

# rows, inputs, outputs of each matrix: none a multiple of a register block, more rows than a block
# or all lanes hold, fewer rows than lanes, a depth beyond one pass
CASES = [
    (1, 1, (1,)),
    (5, 3, (4, 1)),
    (777, 33, (17, 5)),
    (2000, 24, (40,)),
    (96, 300, (270, 7)),
    (3, 64, (513,)),
]
cases = pytest.mark.parametrize("rows,inner,outs", CASES)


def inputs(
    rows: int, inner: int, outs: tuple[int, ...]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """x, the matrices and the gradients of what they give."""
    random = torch.Generator().manual_seed(rows * inner)
    x = torch.randn(rows, inner, generator=random)
    weights = [torch.randn(out, inner, generator=random) for out in outs]
    return x, weights, [torch.randn(rows, out, generator=random) for out in outs]


@cases
def test_native_equals_reference(rows: int, inner: int, outs: tuple[int, ...]) -> None:
    x, weights, grads = inputs(rows, inner, outs)
    wanted = reference.projections(x, *weights)
    for mine, theirs in zip(cpu.projections(x, *weights), wanted, strict=True):
        near(mine, theirs)
    found = cpu.projections_grad(x, weights, grads)
    for mine, theirs in zip(found, reference.projections_grad(x, weights, grads), strict=True):
        near(mine, theirs)
    frozen = cpu.projections_grad(x, weights, grads, learns=False)
    assert torch.equal(frozen[0], found[0])
    assert [t.numel() for t in frozen[1:]] == [0] * len(outs)


@cases
def test_the_operator_is_what_torch_computes(rows: int, inner: int, outs: tuple[int, ...]) -> None:
    x, weights, grads = inputs(rows, inner, outs)
    leaves = [t.requires_grad_() for t in (x, *weights)]
    found = projections(x[None], *weights)
    plain = [F.linear(x[None], weight) for weight in weights]
    for mine, theirs in zip(found, plain, strict=True):
        near(mine.detach(), theirs.detach())
    of = [grad[None] for grad in grads]
    pairs = zip(*(torch.autograd.grad(y, leaves, of) for y in (found, plain)), strict=True)
    for mine, theirs in pairs:
        near(mine, theirs)


def test_no_rows_have_no_gradient() -> None:
    x, weights, grads = inputs(0, 5, (4, 3))
    assert [y.shape for y in cpu.projections(x, *weights)] == [(0, 4), (0, 3)]
    found = cpu.projections_grad(x, weights, grads)
    assert [t.shape for t in found] == [(0, 5), (4, 5), (3, 5)]
    assert not any(t.any() for t in found)


def test_the_threads_do_not_change_a_bit() -> None:
    x, weights, grads = inputs(3000, 64, (96, 40))
    before = cpu.get_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            cpu.set_threads(threads)
            y = cpu.projections(x, *weights)
            results.append([*y, *cpu.projections_grad(x, weights, grads)])
    finally:
        cpu.set_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_row_alone_is_the_same_row_among_others() -> None:
    x, weights, grads = inputs(1000, 64, (96, 40))
    y, x_grad = cpu.projections(x, *weights), cpu.projections_grad(x, weights, grads)[0]
    for n in (0, 17, 999):
        alone = cpu.projections(x[n : n + 1], *weights)
        assert all(torch.equal(a[0], b[n]) for a, b in zip(alone, y, strict=True))
        some = [grad[n : n + 1] for grad in grads]
        assert torch.equal(cpu.projections_grad(x[n : n + 1], weights, some)[0][0], x_grad[n])


@pytest.mark.parametrize("frozen", [(), (0,), (0, 1)])
def test_layers_in_training_give_what_they_give_otherwise(frozen: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(1)
    layers = Linear(20, 30), Linear(20, 7)
    for number, layer in enumerate(layers):
        assert isinstance(layer.weight, Tensor)
        torch.nn.init.normal_(layer.weight, generator=random)
        layer.weight.requires_grad_(number not in frozen)
    results = []
    for training in (True, False):
        x = torch.randn(2, 50, 20, generator=torch.Generator().manual_seed(2)).requires_grad_()
        for layer in layers:
            layer.train(training).zero_grad()
        first, second = both(x, *layers)
        (first.square().sum() + second.pow(3).sum() + layers[0](x).sum()).backward()
        results.append([first.detach(), second.detach(), x.grad, *(m.weight.grad for m in layers)])
    for mine, theirs in zip(*results, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            near(mine, theirs)
    assert [m.weight.grad is None for m in layers] == [n in frozen for n in (0, 1)]
