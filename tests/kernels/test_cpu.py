"""Every native kernel against the reference, over odd shapes and both weight types."""

from __future__ import annotations

import ctypes

import pytest
import torch

from ingle.kernels import cpu, reference
from ingle.kernels.library import LIBRARY
from tests.kernels.cases import near, paged, rope_tables

WEIGHTS = [torch.float32, torch.bfloat16]
weights = pytest.mark.parametrize("kind", WEIGHTS, ids=["fp32", "bf16"])


@weights
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 7, 16, 65])
def test_linear(rows: int, kind: torch.dtype) -> None:
    for inner, outs in [
        (1, 1),
        (3, 5),
        (17, 9),
        (192, 64),
        (100, 33),
        (1024, 8),
        (1031, 12),
        (2051, 7),
    ]:
        x = torch.randn(rows, inner)
        w = torch.randn(outs, inner).to(kind)
        near(cpu.linear(x, w), reference.linear(x, w.float()))


def test_linear_shapes() -> None:
    w = torch.randn(24, 40)
    near(cpu.linear(torch.randn(0, 40), w), torch.empty(0, 24))
    for x in (torch.randn(2, 3, 40), torch.randn(40), torch.randn(6, 80)[:, ::2]):
        near(cpu.linear(x, w), reference.linear(x, w))


@weights
def test_rms_norm(kind: torch.dtype) -> None:
    for rows, width in [(0, 8), (1, 1), (3, 7), (5, 33), (16, 192), (4, 512), (2, 7168)]:
        x = torch.randn(rows, width) * 3
        w = torch.randn(width).to(kind)
        near(cpu.rms_norm(x, w, 1e-6), reference.rms_norm(x, w.float(), 1e-6), 1e-6)


@pytest.mark.parametrize("half_split", [False, True], ids=["neighbours", "halves"])
@pytest.mark.parametrize("rope", [4, 6, 16, 64])
def test_rope_is_bitwise_equal(rope: int, half_split: bool) -> None:
    cos, sin = rope_tables(300, rope)
    for rows, heads, nope in [(0, 2, 8), (1, 1, 0), (7, 3, 5), (40, 8, 32)]:
        x = torch.randn(rows, heads, nope + rope)
        expected = x.clone()
        positions = torch.randint(0, 300, (rows,), dtype=torch.int32)
        cpu.rope_(x, cos, sin, positions, half_split)
        reference.rope_(expected, cos, sin, positions, half_split)
        assert torch.equal(x, expected)


@weights
@pytest.mark.parametrize("rank,rope", [(16, 4), (33, 6), (96, 16), (512, 64)])
def test_write_latent(rank: int, rope: int, kind: torch.dtype) -> None:
    cos, sin = rope_tables(200, rope)
    for rows in (0, 1, 9):
        kv, norm = torch.randn(rows, rank + rope), torch.randn(rank)
        positions = torch.randint(0, 200, (rows,), dtype=torch.int32)
        slots = torch.randperm(3 * 64)[:rows].int()
        ours, expected = (torch.zeros(3, 64, rank + rope, dtype=kind) for _ in range(2))
        cpu.write_latent(kv, norm, 1e-6, cos, sin, positions, slots, ours)
        reference.write_latent(kv, norm, 1e-6, cos, sin, positions, slots, expected)
        # a last bit of difference in fp32 may round to the next bf16
        near(ours.float(), expected.float(), 1e-6 if kind is torch.float32 else 1e-2)
        assert torch.equal(ours == 0, expected == 0)


@weights
@pytest.mark.parametrize("cache", WEIGHTS, ids=["cache fp32", "cache bf16"])
@pytest.mark.parametrize(
    "heads,rank,rope,nope,value",
    [
        (1, 16, 4, 8, 8),
        (2, 33, 6, 5, 7),
        (4, 96, 16, 32, 32),
        (8, 512, 64, 128, 128),
        (19, 24, 8, 0, 12),
    ],
)
def test_mla_attention(
    heads: int, rank: int, rope: int, nope: int, value: int, cache: torch.dtype, kind: torch.dtype
) -> None:
    spans = [(0, 1), (0, 70), (63, 1), (64, 2), (127, 3), (190, 20)]
    case = paged(spans, heads, rank, rope, nope, value, kind, cache)
    q, kv_b, cache_PGC, *table = case.arguments()
    expected = reference.mla_attention(q, kv_b.float(), cache_PGC, *table, case.scale)
    near(cpu.mla_attention(q, kv_b, cache_PGC, *table, case.scale), expected)


def test_mla_attention_without_rows_and_with_large_scores() -> None:
    case = paged([(5, 4)], 4, 32, 8, 16, 16)
    none = torch.zeros(0, dtype=torch.int64)
    assert cpu.mla_attention(*case.arguments(none), case.scale).shape == (0, 64)
    arguments = case.arguments()
    near(cpu.mla_attention(*arguments, 1e4), reference.mla_attention(*arguments, 1e4), 1e-4)


@pytest.mark.parametrize("page_tokens", [16, 48, 100])
def test_mla_attention_with_other_page_sizes(page_tokens: int) -> None:
    q, kv_b = torch.randn(3, 2, 24), torch.randn(2 * 32, 40)
    cache = torch.randn(9, page_tokens, 48)
    pages = torch.randperm(9).int()[None]
    positions = torch.tensor([0, page_tokens, 5 * page_tokens + 3], dtype=torch.int32)
    arguments = q, kv_b, cache, pages, torch.zeros(3, dtype=torch.int32), positions, 0.2
    near(cpu.mla_attention(*arguments), reference.mla_attention(*arguments))


@pytest.mark.parametrize("cache", WEIGHTS, ids=["cache fp32", "cache bf16"])
@pytest.mark.parametrize(
    "heads,key_heads,width", [(1, 1, 8), (4, 2, 16), (6, 2, 20), (28, 4, 128), (40, 1, 64)]
)
def test_grouped_attention(heads: int, key_heads: int, width: int, cache: torch.dtype) -> None:
    spans = [(0, 1), (0, 70), (63, 1), (64, 2), (127, 3), (190, 20)]
    channels = 2 * key_heads * width
    case = paged(spans, heads, channels - 2, 2, width - 2, width, cache=cache)
    q, _, cache_PGC, *table = case.arguments()
    arguments = q, cache_PGC, *table, key_heads, case.scale
    near(cpu.gqa_attention(*arguments), reference.gqa_attention(*arguments))


@weights
def test_write_keys(kind: torch.dtype) -> None:
    k, v = torch.randn(7, 3, 10), torch.randn(7, 3, 10)
    slots = torch.randperm(2 * 64)[:7].int()
    ours, expected = (torch.zeros(2, 64, 60, dtype=kind) for _ in range(2))
    cpu.write_keys(k, v, slots, ours)
    reference.write_keys(k, v, slots, expected)
    assert torch.equal(ours, expected)
    with pytest.raises(IndexError):
        cpu.write_keys(k, v, slots + 128, ours)


@weights
@pytest.mark.parametrize("scoring", ["sigmoid", "softmax"])
@pytest.mark.parametrize("groups,top_groups", [(1, 1), (2, 1), (4, 2)])
@pytest.mark.parametrize("normalise", [True, False])
def test_route(
    groups: int, top_groups: int, normalise: bool, scoring: str, kind: torch.dtype
) -> None:
    for rows, width, count, top_k in [(1, 192, 8, 2), (50, 33, 16, 4), (20, 64, 64, 8)]:
        top_k = min(top_k, count // groups * top_groups)
        x, bias = torch.randn(rows, width), torch.randn(count) * 0.1
        gate = (torch.randn(count, width) / width**0.5).to(kind)
        chosen_by = None if scoring == "softmax" and groups == 2 else bias
        rest = chosen_by, groups, top_groups, top_k, normalise, 2.5, scoring
        ids, shares = cpu.route(x, gate, *rest)
        expected_ids, expected = reference.route(x, gate.float(), *rest)
        assert ids.dtype == torch.int32 and torch.equal(ids, expected_ids)
        near(shares, expected, 1e-6)


def test_route_takes_the_lowest_of_equals() -> None:
    ids, _ = cpu.route(torch.ones(3, 8), torch.ones(16, 8), torch.zeros(16), 4, 2, 3, True, 1.0)
    assert ids.tolist() == [[0, 1, 2]] * 3


@weights
def test_mlp(kind: torch.dtype) -> None:
    for rows, width, inner in [
        (0, 8, 8),
        (1, 192, 512),
        (5, 33, 70),
        (16, 192, 128),
        (70, 96, 200),
    ]:
        x = torch.randn(rows, width)
        gate, up = (torch.randn(inner, width) / width**0.5 for _ in range(2))
        down = torch.randn(width, inner) / inner**0.5
        operands = [w.to(kind) for w in (gate, up, down)]
        near(cpu.mlp(x, *operands), reference.mlp(x, *(w.float() for w in operands)))


@weights
def test_experts(kind: torch.dtype) -> None:
    for rows, width, count, inner, top_k in [
        (1, 192, 8, 128, 2),
        (7, 33, 5, 19, 3),
        (90, 64, 4, 100, 2),
    ]:
        x = torch.randn(rows, width)
        ids = torch.stack([torch.randperm(count)[:top_k] for _ in range(rows)]).int()
        shares = torch.rand(rows, top_k)
        gate_up = (torch.randn(count, 2 * inner, width) / width**0.5).to(kind)
        down = (torch.randn(count, width, inner) / inner**0.5).to(kind)
        expected = reference.experts(x, ids, shares, gate_up.float(), down.float())
        near(cpu.experts(x, ids, shares, gate_up, down), expected)
    empty = cpu.experts(x[:0], ids[:0], shares[:0], gate_up, down)
    assert empty.shape == (0, width)


def test_exp_over_the_whole_range() -> None:
    assert LIBRARY is not None
    steps = torch.arange(-104.5, 89.5, 1e-3)
    ends = torch.tensor([-0.0, 0.0, 1e-30, -1e30, 1e30, float("inf"), -float("inf"), float("nan")])
    x = torch.cat([steps, ends])
    y = torch.empty_like(x)
    count = ctypes.c_long(x.numel())
    LIBRARY.ingle_exp(ctypes.c_void_p(x.data_ptr()), count, ctypes.c_void_p(y.data_ptr()))
    exact = x.double().exp()
    assert torch.equal(y.isnan(), x.isnan())
    assert torch.equal(y.isinf(), exact.float().isinf())
    assert y[-2] == 0 and y[-3] == float("inf") and y[steps.numel()] == 1
    normal = (exact > 2.0**-126) & (exact < 3.4e38)
    unit = torch.exp2(exact[normal].log2().floor() - 23)
    assert float(((y[normal].double() - exact[normal]) / unit).abs().max()) < 2
    small = exact <= 2.0**-126
    assert float((y[small].double() - exact[small]).abs().max()) < 2.0**-148
