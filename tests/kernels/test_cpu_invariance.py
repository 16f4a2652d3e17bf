"""Bitwise batch invariance, fall-through and refusals of the native kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ingle.kernels import build, cpu, library, reference
from tests.kernels.cases import paged, rope_tables

KINDS = pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def check_rows(rows: int, compute: Callable[[Tensor], Tensor]) -> None:
    """`compute(row numbers)` gives each row the same bits in any company and thread count."""
    cpu.set_threads(1)
    expected = torch.cat([compute(torch.tensor([n])) for n in range(rows)])
    for threads in (1, 2, 3):
        cpu.set_threads(threads)
        for size in (1, 2, 3, 4, 5, 6, 7, 11, rows):
            picked = torch.randint(0, rows, (size,))
            assert torch.equal(compute(picked), expected[picked])
        assert torch.equal(compute(torch.arange(rows)), expected)


@KINDS
@pytest.mark.parametrize("inner,outs", [(192, 512), (33, 13), (2100, 300)])
def test_linear(inner: int, outs: int, kind: torch.dtype) -> None:
    x, w = torch.randn(70, inner), torch.randn(outs, inner).to(kind)
    check_rows(70, lambda rows: cpu.linear(x[rows], w))
    # a strided view is one row long or many: both must be native
    wide = torch.randn(9, 2 * inner)
    whole = cpu.linear(wide[:, :inner], w)
    for n in range(9):
        assert torch.equal(cpu.linear(wide[n : n + 1, :inner], w)[0], whole[n])


@KINDS
def test_mlp_experts_route_norm(kind: torch.dtype) -> None:
    rows, width, count, inner = 80, 192, 8, 136
    x = torch.randn(rows, width)
    gate, up = (torch.randn(inner, width).to(kind) for _ in range(2))
    down = torch.randn(width, inner).to(kind)
    check_rows(rows, lambda n: cpu.mlp(x[n], gate, up, down))
    gate_up, downs = torch.randn(count, 2 * inner, width), torch.randn(count, width, inner)
    gate_up, downs = gate_up.to(kind), downs.to(kind)
    ids = torch.stack([torch.randperm(count)[:2] for _ in range(rows)]).int()
    shares = torch.rand(rows, 2)
    check_rows(rows, lambda n: cpu.experts(x[n], ids[n], shares[n], gate_up, downs))
    router, bias = torch.randn(count, width).to(kind), torch.randn(count)
    check_rows(rows, lambda n: cpu.route(x[n], router, bias, 2, 1, 2, True, 1.0)[1])
    check_rows(rows, lambda n: cpu.rms_norm(x[n], gate[0], 1e-6))


@KINDS
@pytest.mark.parametrize("heads,rank,rope", [(1, 16, 4), (4, 96, 16), (5, 50, 6), (18, 128, 16)])
def test_mla_attention(heads: int, rank: int, rope: int, kind: torch.dtype) -> None:
    spans = [(0, 20), (200, 1), (63, 3), (90, 40), (500, 2)]
    case = paged(spans, heads, rank, rope, 32, 24, kind, kind)
    rows = case.batch.tokens_N.numel()
    check_rows(rows, lambda n: cpu.mla_attention(*case.arguments(n), case.scale))


def test_mla_attention_ignores_its_neighbours_future() -> None:
    case = paged([(60, 10)], 4, 32, 8, 16, 16)
    before = cpu.mla_attention(*case.arguments(), case.scale)
    page, offset = divmod(int(case.batch.slots_N[-1]), 64)
    case.cache_PGC[page, offset] = float("nan")
    after = cpu.mla_attention(*case.arguments(), case.scale)
    assert torch.equal(before[:-1], after[:-1]) and bool(after[-1].isnan().all())


def test_callers_at_once_and_in_a_forked_child() -> None:
    cpu.set_threads(3)
    x, w = torch.randn(40, 300), torch.randn(200, 300)
    expected = cpu.linear(x, w)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: cpu.linear(x, w), range(200)))
    assert all(torch.equal(y, expected) for y in results)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(cpu.linear(x, w), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_other_operands_fall_through_to_the_reference() -> None:
    x, w = torch.randn(3, 16), torch.randn(8, 16, requires_grad=True)
    y = cpu.linear(x, w)
    assert y.requires_grad
    y.sum().backward()
    assert torch.allclose(w.grad, x.sum(0).expand(8, 16))  # type: ignore[arg-type]
    with torch.no_grad():
        assert torch.allclose(cpu.linear(x, w), y)
    double = cpu.linear(x.double(), w.detach().double())
    assert torch.equal(double, reference.linear(x.double(), w.detach().double()))
    half = cpu.linear(x.bfloat16(), w.detach().bfloat16())
    assert half.dtype == torch.bfloat16
    strided = torch.randn(16, 8).T
    assert torch.allclose(cpu.linear(x, strided), x @ strided.T, atol=1e-5)
    norm = torch.ones(16, requires_grad=True)
    assert cpu.rms_norm(x, norm, 1e-6).requires_grad
    gate, up, down = torch.randn(4, 16), torch.randn(4, 16, requires_grad=True), torch.randn(16, 4)
    assert cpu.mlp(x, gate, up, down).requires_grad
    with pytest.raises(RuntimeError, match="shapes"):
        cpu.linear(torch.randn(2, 9), w)


def test_ids_out_of_range_are_refused_before_memory_is_touched() -> None:
    def ints(*values: int) -> Tensor:
        return torch.tensor(values, dtype=torch.int32)

    cos, sin = rope_tables(10, 4)
    for position in (-1, 10):
        with pytest.raises(IndexError):
            cpu.rope_(torch.randn(1, 2, 8), cos, sin, ints(position))
    cache = torch.zeros(2, 64, 20)
    for position, slot in [(0, 128), (0, -1), (10, 0)]:
        row = torch.randn(1, 20), torch.ones(16), 1e-6, cos, sin
        with pytest.raises(IndexError):
            cpu.write_latent(*row, ints(position), ints(slot), cache)
    q, kv_b = torch.randn(1, 2, 12), torch.randn(2 * 16, 16)
    for pages, sequence, position in [(2, 0, 3), (-1, 0, 3), (0, 1, 3), (0, 0, 64), (0, 0, -1)]:
        with pytest.raises(IndexError):
            cpu.mla_attention(
                q, kv_b, cache, ints(pages)[None], ints(sequence), ints(position), 1.0
            )
    with pytest.raises(IndexError):
        cpu.route(torch.randn(1, 4), torch.randn(3, 4), torch.zeros(3), 1, 1, 4, True, 1.0)
    with pytest.raises(IndexError):
        weights = torch.randn(3, 8, 4), torch.randn(3, 4, 4)
        cpu.experts(torch.randn(1, 4), ints(3)[None], torch.ones(1, 1), *weights)


def test_a_missing_library_is_explained() -> None:
    code = "from ingle.kernels import cpu, select; print(cpu.available(), select().name)\n"
    code += "print(cpu.unavailable_reason())"
    environment = {**os.environ, "INGLE_CPU_TARGET": "absent"}
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout
    assert out.startswith("False reference\n") and "python -m ingle.kernels.cpu --build" in out


def others() -> list[str]:
    """Targets that run here, without the one whose kernels all other tests call."""
    mine = Path(library.LIBRARY._name).stem if library.LIBRARY else ""
    return [target for target in build.runnable_targets() if target != mine]


@pytest.mark.slow
@pytest.mark.parametrize("target", others())
def test_every_other_target_that_runs_here(target: str) -> None:
    """Build one target and run this folder's quick tests with it."""
    path = build.SOURCES / f"{target}.so"
    newest = max(source.stat().st_mtime for source in build.SOURCES.glob("*.[ch]*"))
    if not path.exists() or path.stat().st_mtime < newest:
        build.build(target)
    environment = {**os.environ, "INGLE_CPU_TARGET": target}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-m",
        "not slow",
        str(Path(__file__).parent),
    ]
    result = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:]
