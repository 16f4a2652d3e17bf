"""Attention of training from what latent attention's projections make: native against reference,
and both against turning and joining queries and keys by themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ingle.kernels import cpu, reference
from ingle.models.layers.documents import document_attention
from ingle.models.layers.latent import latent_attention
from ingle.models.layers.rope import rotate
from tests.kernels.cases import near, rope_tables

# heads, key width without its rotary part, rotary width, value width, documents
CASES = [
    (4, 16, 8, 16, [5, 1, 90, 33, 64]),
    (8, 32, 16, 32, [200, 7]),
    (3, 5, 6, 7, [3, 65, 1, 1, 1]),
    (2, 0, 4, 3, [9, 4]),
    (1, 2, 2, 1, [1]),
]
cases = pytest.mark.parametrize("heads,plain,rotary,value,lengths", CASES)


def inputs(
    heads: int, plain: int, rotary: int, value: int, lengths: list[int]
) -> tuple[list[Tensor], tuple[Tensor, Tensor], Tensor, Tensor]:
    """q, kv and key, which is a slice of wider rows; cos and sin; starts; the gradient of y."""
    tokens, random = sum(lengths), torch.Generator().manual_seed(sum(lengths) * heads)
    firsts = [sum(lengths[:i]) for i in range(len(lengths))]
    starts = torch.tensor(firsts, dtype=torch.int32).repeat_interleave(torch.tensor(lengths))
    shapes = (heads, plain + rotary), (heads, plain + value), (heads, value), (11 + rotary,)
    q, kv, grad, wide = (torch.randn(tokens, *shape, generator=random) for shape in shapes)
    positions = torch.arange(tokens) - starts
    cos, sin = (table[positions] for table in rope_tables(tokens, rotary))
    return [q, kv, wide[:, 11:]], (cos, sin), starts, grad


@cases
def test_native_equals_reference(
    heads: int, plain: int, rotary: int, value: int, lengths: list[int]
) -> None:
    given, tables, starts, grad = inputs(heads, plain, rotary, value, lengths)
    expected = reference.latent_attention(*given, *tables, starts, 0.3)
    actual = cpu.latent_attention(*given, *tables, starts, 0.3)
    for mine, theirs in zip(actual, expected, strict=True):
        near(mine, theirs)
    wanted = reference.latent_attention_grad(*given, *tables, starts, 0.3, expected[1], grad)
    found = cpu.latent_attention_grad(*given, *tables, starts, 0.3, actual[1], grad)
    for mine, theirs in zip(found, wanted, strict=True):
        assert (mine - theirs).abs().max() < 1e-5  # one document of one token has none


@cases
def test_the_operator_is_attention_of_turned_and_joined_rows(
    heads: int, plain: int, rotary: int, value: int, lengths: list[int]
) -> None:
    given, (cos, sin), starts, grad = inputs(heads, plain, rotary, value, lengths)
    q, kv, key = leaves = [x.detach().requires_grad_() for x in given]
    y = latent_attention(q, kv, key, cos, sin, starts, 0.3)
    found = torch.autograd.grad(y, leaves, grad)

    turned = rotate(q[..., plain:], cos[:, None], sin[:, None])
    shared = rotate(key, cos, sin)[:, None].expand(-1, heads, -1)
    whole_q = torch.cat([q[..., :plain], turned], -1)
    whole_k = torch.cat([kv[..., :plain], shared], -1)
    plainly = document_attention(whole_q, whole_k, kv[..., plain:], starts, 0.3)
    near(y.detach(), plainly.detach())
    for mine, theirs in zip(found, torch.autograd.grad(plainly, leaves, grad), strict=True):
        assert (mine - theirs).abs().max() < 1e-5


def test_the_threads_do_not_change_a_bit() -> None:
    given, tables, starts, grad = inputs(4, 16, 8, 16, [70] * 12)
    before = cpu.get_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            cpu.set_threads(threads)
            y, log_sum = cpu.latent_attention(*given, *tables, starts, 0.3)
            grads = cpu.latent_attention_grad(*given, *tables, starts, 0.3, log_sum, grad)
            results.append([y, log_sum, *grads])
    finally:
        cpu.set_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_starts_that_describe_no_documents_are_refused() -> None:
    given, tables, starts, _ = inputs(2, 4, 4, 4, [3, 2])
    starts[4] = 1
    with pytest.raises(IndexError):
        cpu.latent_attention(*given, *tables, starts, 1.0)
