"""Attention inside packed documents: native against reference, and both against autograd."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ingle.kernels import cpu, reference
from ingle.models.layers.documents import document_attention
from tests.kernels.cases import near

CASES = [
    (6, 32, 32, [5, 1, 90, 33, 64]),
    (3, 24, 20, [200, 7]),
    (2, 10, 7, [3, 65, 1, 1, 1]),
    (1, 4, 4, [1]),
]
cases = pytest.mark.parametrize("heads,width,value,lengths", CASES)


def starts_of(lengths: list[int]) -> Tensor:
    firsts = [sum(lengths[:i]) for i in range(len(lengths))]
    return torch.tensor(firsts, dtype=torch.int32).repeat_interleave(torch.tensor(lengths))


def inputs(heads: int, width: int, value: int, tokens: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(tokens * heads)
    shapes = (width, width, value, value)
    return [torch.randn(tokens, heads, n, generator=generator) for n in shapes]


@cases
def test_native_equals_reference(heads: int, width: int, value: int, lengths: list[int]) -> None:
    starts = starts_of(lengths)
    q, k, v, grad = inputs(heads, width, value, len(starts))
    expected = reference.document_attention(q, k, v, starts, 0.3)
    actual = cpu.document_attention(q, k, v, starts, 0.3)
    for mine, theirs in zip(actual, expected, strict=True):
        near(mine, theirs)
    wanted = reference.document_attention_grad(q, k, v, starts, 0.3, expected[1], grad)
    found = cpu.document_attention_grad(q, k, v, starts, 0.3, actual[1], grad)
    for mine, theirs in zip(found, wanted, strict=True):
        near(mine, theirs)


@cases
def test_the_operator_is_what_torch_computes_for_each_document(
    heads: int, width: int, value: int, lengths: list[int]
) -> None:
    starts = starts_of(lengths)
    q, k, v, grad = inputs(heads, width, value, len(starts))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    y = document_attention(q, k, v, starts, 0.3)
    found = torch.autograd.grad(y, leaves, grad)
    parts = [
        F.scaled_dot_product_attention(
            *(x.transpose(0, 1) for x in part), is_causal=True, scale=0.3
        ).transpose(0, 1)
        for part in zip(*(x.split(lengths) for x in leaves), strict=True)
    ]
    plain = torch.cat(parts)
    near(y.detach(), plain.detach())
    for mine, theirs in zip(found, torch.autograd.grad(plain, leaves, grad), strict=True):
        near(mine, theirs)


def test_the_threads_do_not_change_a_bit() -> None:
    starts = starts_of([70] * 12)
    q, k, v, grad = inputs(4, 32, 32, len(starts))
    before = cpu.get_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            cpu.set_threads(threads)
            y, log_sum = cpu.document_attention(q, k, v, starts, 0.3)
            grads = cpu.document_attention_grad(q, k, v, starts, 0.3, log_sum, grad)
            results.append([y, log_sum, *grads])
    finally:
        cpu.set_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("starts", [[1, 1, 2], [0, 0, 5], [0, 1, 0], [-1, 0, 0]])
def test_starts_that_describe_no_documents_are_refused(starts: list[int]) -> None:
    q, k, v, _ = inputs(1, 4, 4, 3)
    with pytest.raises(IndexError):
        cpu.document_attention(q, k, v, torch.tensor(starts, dtype=torch.int32), 1.0)
