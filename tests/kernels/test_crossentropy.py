"""Cross-entropy of a head: native against reference, and both against torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ingle.kernels import cpu, reference
from ingle.models.layers.crossentropy import cross_entropy
from ingle.models.layers.linear import Linear
from tests.kernels.cases import near

# rows, width, vocabulary: fewer rows than lanes, than a block, none a multiple of a block
CASES = [(1, 8, 5), (3, 16, 512), (130, 33, 77), (1000, 40, 300), (50, 530, 1001)]
cases = pytest.mark.parametrize("rows,width,vocabulary", CASES)


def inputs(rows: int, width: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and targets, some rows without one."""
    random = torch.Generator().manual_seed(rows * width)
    x, weight = (torch.randn(n, width, generator=random) for n in (rows, vocabulary))
    targets = torch.randint(0, vocabulary, (rows,), generator=random)
    targets[1::7] = -100
    return x, weight * 0.3, targets


@cases
def test_native_equals_reference(rows: int, width: int, vocabulary: int) -> None:
    given = inputs(rows, width, vocabulary)
    actual, expected = cpu.cross_entropy(*given), reference.cross_entropy(*given)
    for mine, theirs in zip(actual, expected, strict=True):
        near(mine, theirs)
    frozen = cpu.cross_entropy(*given, learns=False)
    assert torch.equal(frozen[0], actual[0]) and torch.equal(frozen[1], actual[1])
    assert frozen[2].numel() == 0


@cases
@pytest.mark.parametrize("learns", [True, False])
def test_the_operator_is_what_torch_computes(
    rows: int, width: int, vocabulary: int, learns: bool
) -> None:
    x, weight, targets = inputs(rows, width, vocabulary)
    head = Linear(width, vocabulary).requires_grad_(learns)
    head.weight.data.copy_(weight)  # type: ignore[union-attr]
    leaves: list[Tensor] = [x.requires_grad_(), *(p for p in head.parameters() if learns)]
    fused = cross_entropy(x, head, targets)
    plain = F.cross_entropy(head(x), targets, reduction="sum")
    near(fused.detach(), plain.detach())
    for mine, theirs in zip(
        torch.autograd.grad(fused * 0.25, leaves),
        torch.autograd.grad(plain * 0.25, leaves),
        strict=True,
    ):
        near(mine, theirs)


def test_nothing_to_learn_is_no_loss() -> None:
    x, weight, _ = inputs(9, 16, 20)
    total, x_grad, weight_grad = cpu.cross_entropy(x, weight, torch.full((9,), -100))
    assert total == 0 and not x_grad.any() and not weight_grad.any()


def test_large_logits_stay_finite() -> None:
    x, weight, targets = inputs(20, 16, 30)
    found = cpu.cross_entropy(x * 1000, weight, targets)
    for mine, theirs in zip(found, reference.cross_entropy(x * 1000, weight, targets), strict=True):
        assert mine.isfinite().all()
        near(mine, theirs)


def test_the_threads_do_not_change_a_bit() -> None:
    given = inputs(1500, 64, 200)
    before = cpu.get_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            cpu.set_threads(threads)
            results.append(cpu.cross_entropy(*given))
    finally:
        cpu.set_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_target_beyond_the_vocabulary_is_refused() -> None:
    x, weight, targets = inputs(20, 16, 30)
    targets[5] = 30
    with pytest.raises(IndexError):
        cpu.cross_entropy(x, weight, targets)
