"""Quantised weights: native products against plain torch, rounding, what the formats promise."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ingle.kernels import cpu, reference
from ingle.kernels.quantized import Kind, Quantized, dequantise_blocks
from ingle.weights.quantize import quantise, quantise_plain
from tests.kernels.cases import near

KINDS: list[Kind] = ["int8", "int4", "fp8"]
kinds = pytest.mark.parametrize("kind", KINDS)
SHAPES = [(1, 1), (5, 64), (33, 200), (130, 576), (64, 1408)]


def weight_of(outs: int, inner: int, kind: Kind, *front: int) -> Quantized:
    return quantise(torch.randn(*front, outs, inner) / inner**0.5, kind)


@kinds
@pytest.mark.parametrize("shape", SHAPES)
def test_linear(shape: tuple[int, int], kind: Kind) -> None:
    torch.manual_seed(1)
    weight = weight_of(*shape, kind)
    for rows in (0, 1, 2, 3, 5, 16, 70):
        x = torch.randn(rows, shape[1])
        near(cpu.linear(x, weight), reference.linear(x, weight), 2e-5)


@kinds
def test_feed_forwards(kind: Kind) -> None:
    torch.manual_seed(2)
    gate, up, down = weight_of(96, 72, kind), weight_of(96, 72, kind), weight_of(72, 96, kind)
    stack, back = weight_of(192, 72, kind, 4), weight_of(72, 96, kind, 4)
    for rows in (1, 9, 66):
        x = torch.randn(rows, 72)
        # the hidden values are rounded again: a last bit may turn into a step of one value
        near(cpu.mlp(x, gate, up, down), reference.mlp(x, gate, up, down), 5e-3)
        ids, shares = torch.randint(0, 4, (rows, 2)).int(), torch.rand(rows, 2)
        found = cpu.experts(x, ids, shares, stack, back)
        near(found, reference.experts(x, ids, shares, stack, back), 5e-3)


@kinds
def test_a_row_does_not_depend_on_its_batch(kind: Kind) -> None:
    torch.manual_seed(3)
    weight, x = weight_of(50, 300, kind), torch.randn(40, 300)
    together = cpu.linear(x, weight)
    for row in (0, 1, 17, 39):
        assert torch.equal(cpu.linear(x[row : row + 1], weight)[0], together[row])
    x[3] = float("nan")
    spoilt = cpu.linear(x, weight)
    assert spoilt[3].isnan().all()
    keep = [row for row in range(40) if row != 3]
    assert torch.equal(spoilt[keep], together[keep])


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16])
def test_native_rounding_equals_the_plain_one(kind: Kind, source: torch.dtype) -> None:
    torch.manual_seed(4)
    for shape in [(3, 64), (7, 200), (2, 5, 130)]:
        weight, importance = torch.randn(*shape).to(source), torch.rand(shape[-1])
        weight[..., 0, :64] = 0  # a group of zeros
        ours = quantise(weight, kind, importance)
        plain = quantise_plain(weight, kind, importance)
        same = (ours.scale == plain.scale).float().mean()
        assert same > 0.98  # errors equal to the last bit may be told apart in another order
        mine, theirs = (
            ((q.dequantise() - weight.float()) ** 2 * importance).sum() for q in (ours, plain)
        )
        assert mine <= theirs * 1.0001


def test_rounding_errors_are_what_the_bits_allow() -> None:
    torch.manual_seed(5)
    weight = torch.randn(64, 4096)
    for kind, most in (("int8", 0.008), ("int4", 0.12), ("fp8", 0.03)):
        error = (quantise(weight, kind).dequantise() - weight).norm() / weight.norm()
        assert error < most, kind
    steps = quantise(weight, "int8")
    largest = weight.unflatten(-1, (-1, 64)).abs().amax(-1)
    worst = (steps.dequantise() - weight).unflatten(-1, (-1, 64)).abs().amax(-1)
    assert (worst <= largest / 127 * 0.51).all()


def test_the_search_beats_the_plain_choice_of_a_scale() -> None:
    torch.manual_seed(6)
    weight = torch.randn(32, 1024)
    groups = weight.unflatten(-1, (-1, 64))
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scale = largest / -8
    plain = ((groups / scale).round().clamp(-8, 7) * scale - groups).square().sum()
    searched = (quantise(weight, "int4").dequantise() - weight).square().sum()
    assert searched < 0.93 * plain


def test_importance_moves_the_error_to_where_it_matters_less() -> None:
    torch.manual_seed(7)
    weight, importance = torch.randn(32, 512), torch.ones(512)
    importance[::2] = 50.0
    blind, aware = (quantise(weight, "int4", i).dequantise() - weight for i in (None, importance))
    assert (aware[:, ::2].square().sum()) < 0.97 * blind[:, ::2].square().sum()


def test_bytes_per_weight() -> None:
    weight = torch.randn(128, 1024)
    per_weight = {kind: quantise(weight, kind).nbytes * 8 / weight.numel() for kind in KINDS}
    assert per_weight == {"int8": 8.25, "int4": 4.25, "fp8": pytest.approx(8 + 32 / 128**2)}


@pytest.mark.parametrize("shape", [(128, 128), (300, 200), (1, 1000), (129, 127)])
def test_fp8_blocks_follow_the_published_formula(shape: tuple[int, int]) -> None:
    torch.manual_seed(8)
    data = (torch.randn(shape) * 100).to(torch.float8_e4m3fn)
    scale = torch.rand(-(-shape[0] // 128), -(-shape[1] // 128)) + 0.1
    expected = torch.empty(shape)
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            part = slice(128 * i, 128 * i + 128), slice(128 * j, 128 * j + 128)
            expected[part] = data[part].float() * scale[i, j]
    assert torch.equal(dequantise_blocks(data, scale), expected)
    weight = Quantized("fp8", data, scale, shape[1])
    x = torch.eye(shape[1])  # picks single weights: the kernel's own widening is exact too
    assert torch.equal(cpu.linear(x, weight), F.linear(x, expected))


def test_every_fp8_value_is_widened_exactly() -> None:
    bits = torch.arange(256, dtype=torch.uint8)
    data = bits[(bits & 127) != 127].view(torch.float8_e4m3fn)[:, None]
    weight = Quantized("fp8", data, torch.ones(2, 1), 1)
    assert torch.equal(cpu.linear(torch.ones(1, 1), weight)[0], data[:, 0].float())
