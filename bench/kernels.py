"""Native CPU kernels beside the reference tier, as shares of limits measured in the same run.

`python bench/kernels.py [--threads N] [--seconds S]`: one table for the small model's decode
shapes, one for large linear layers. GFLOP/s count a multiply-add as two, GB/s the weights once;
weights larger than the caches are rotated so that they come from memory. Times are the fastest
tenth of interleaved calls, because a shared machine only ever adds time.

Legend: as in ingle/kernels/reference.py.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ingle.kernels import cpu, reference
from ingle.kernels.library import LIBRARY
from ingle.models.batch import StepBatch

WIDTH, VOCAB, HEADS, RANK, ROPE, NOPE, VALUE = 192, 512, 4, 96, 16, 32, 32
EXPERTS, CHOSEN, INNER, CONTEXT = 8, 2, 128, 200
LARGE = [(2048, 1408), (1536, 8960)]
CACHES = 128 << 20  # bytes that no cache holds


def fastest(calls: list[Callable[[], Any]], seconds: float) -> list[float]:
    """Seconds per call for each of several calls, measured in turn."""
    samples: list[list[float]] = [[] for _ in calls]
    until = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < until or len(samples[0]) < 10:
        for call, kept in zip(calls, samples, strict=True):
            start = time.perf_counter()
            call()
            kept.append(time.perf_counter() - start)
    return [sorted(kept)[len(kept) // 10] for kept in samples]


def limits(threads: int, seconds: float) -> tuple[float, float]:
    """Peak FLOP/s of multiply-adds in registers and bytes/s of reading memory."""
    library = LIBRARY
    assert library is not None
    library.ingle_probe_fma.restype = ctypes.c_double
    sink = (ctypes.c_float * 512)(0.5, 0.5)
    steps, data = ctypes.c_int64(100_000), torch.ones(CACHES // 4)
    operands = ctypes.c_void_p(data.data_ptr()), ctypes.c_int64(data.numel()), sink
    done = library.ingle_probe_fma(threads, steps, sink)
    peak, read = fastest(
        [
            lambda: library.ingle_probe_fma(threads, steps, sink),
            lambda: library.ingle_probe_read(threads, *operands),
        ],
        max(seconds, 0.5),
    )
    return 2 * done / peak, data.nbytes / read


def small_calls(rows: int) -> list[tuple[str, float, float, Callable[[Any], Any]]]:
    """Name, multiply-adds, weight bytes and the call, for each kernel of one decode step."""
    x, q = torch.randn(rows, WIDTH), torch.randn(rows, HEADS, NOPE + ROPE)
    head, gate = torch.randn(VOCAB, WIDTH), torch.randn(EXPERTS, WIDTH) / 8
    norm, bias = torch.ones(WIDTH), torch.zeros(EXPERTS)
    up_FD, down_DF = torch.randn(2, INNER, WIDTH), torch.randn(WIDTH, INNER)
    gate_up_EJD, down_EDF = (
        torch.randn(EXPERTS, 2 * INNER, WIDTH),
        torch.randn(EXPERTS, WIDTH, INNER),
    )
    pages = -(-(CONTEXT + 1) // 64)
    sequences = [([0], CONTEXT, list(range(s * pages, (s + 1) * pages))) for s in range(rows)]
    batch = StepBatch.build(sequences)
    cache_PGC = torch.randn(rows * pages, 64, RANK + ROPE)
    kv_NC, kv_b_OL = (
        torch.randn(rows, RANK + ROPE),
        torch.randn(HEADS * (NOPE + VALUE), RANK),
    )
    cos_TR, sin_TR = torch.rand(CONTEXT + 1, ROPE // 2), torch.rand(CONTEXT + 1, ROPE // 2)
    latent = kv_NC, torch.ones(RANK), 1e-6, cos_TR, sin_TR, batch.positions_N, batch.slots_N
    routing = gate, bias, 1, 1, CHOSEN, True, 1.0
    ids, shares = reference.route(x, *routing)
    places = batch.pages_SP, batch.sequence_N, batch.positions_N
    attended = HEADS * ((CONTEXT + 1) * (2 * RANK + ROPE) + RANK * (NOPE + VALUE))
    read = rows * (CONTEXT + 1) * (RANK + ROPE) + kv_b_OL.numel()
    active = min(EXPERTS, rows * CHOSEN) * 3 * INNER * WIDTH
    return [
        (
            f"linear {WIDTH}->{VOCAB}",
            rows * WIDTH * VOCAB,
            head.nbytes,
            lambda k: k.linear(x, head),
        ),
        ("rms_norm", rows * WIDTH, 0, lambda k: k.rms_norm(x, norm, 1e-6)),
        (
            "rope_",
            2 * q.numel(),
            0,
            lambda k: k.rope_(q, cos_TR, sin_TR, batch.positions_N),
        ),
        (
            "write_latent",
            2 * kv_NC.numel(),
            0,
            lambda k: k.write_latent(*latent, cache_PGC),
        ),
        (
            f"mla_attention at {CONTEXT}",
            rows * attended,
            4 * read,
            lambda k: k.mla_attention(q, kv_b_OL, cache_PGC, *places, 0.1),
        ),
        (
            "route",
            rows * EXPERTS * WIDTH,
            gate.nbytes,
            lambda k: k.route(x, *routing),
        ),
        (
            f"mlp {INNER}",
            rows * 3 * WIDTH * INNER,
            3 * down_DF.nbytes,
            lambda k: k.mlp(x, up_FD[0], up_FD[1], down_DF),
        ),
        (
            f"experts {CHOSEN} of {EXPERTS}",
            rows * CHOSEN * 3 * WIDTH * INNER,
            4 * active,
            lambda k: k.experts(x, ids, shares, gate_up_EJD, down_EDF),
        ),
    ]


def large_linear(rows: int, inner: int, outs: int, kind: torch.dtype) -> Callable[[Any], Tensor]:
    """A call that takes the next of enough weights to leave the caches each time."""
    x = torch.randn(rows, inner)
    copies = 1 + CACHES // (4 * inner * outs)
    ring = itertools.cycle([torch.randn(outs, inner).to(kind) for _ in range(copies)])
    return lambda kernels: kernels.linear(x, next(ring))


def table(title: str) -> Table:
    columns = (
        "kernel",
        "rows",
        "us",
        "reference us",
        "times",
        "GFLOP/s",
        "of peak",
        "GB/s",
        "of read",
    )
    result = Table(title=title)
    for name in columns:
        result.add_column(name, justify="left" if name == "kernel" else "right")
    return result


def add(
    into: Table,
    name: str,
    rows: int,
    times: list[float],
    work: tuple[float, float],
    limit: tuple[float, float],
) -> None:
    ours, theirs = times
    flops, speed = 2 * work[0] / ours, work[1] / ours
    into.add_row(
        name,
        str(rows),
        f"{ours * 1e6:.1f}",
        f"{theirs * 1e6:.1f}",
        f"{theirs / ours:.2f}",
        f"{flops / 1e9:.1f}",
        f"{flops / limit[0]:.0%}",
        f"{speed / 1e9:.1f}",
        f"{speed / limit[1]:.0%}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Native CPU kernels beside the reference tier.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=0.2, help="per measured call")
    options = parser.parse_args()
    if not cpu.available():
        raise SystemExit(cpu.unavailable_reason())
    torch.set_num_threads(options.threads)
    cpu.set_threads(options.threads)
    limit = limits(options.threads, options.seconds)
    console = Console(width=None if sys.stdout.isatty() else 120)
    with torch.inference_mode():
        small = table("Decode shapes of the small model, fp32, weights in cache")
        for rows in (1, 16):
            for name, work, read, call in small_calls(rows):
                calls = [lambda c=call: c(cpu), lambda c=call: c(reference)]  # type: ignore[misc]
                add(small, name, rows, fastest(calls, options.seconds), (work, read), limit)
        console.print(small)
        large = table("Large linear layers, weights in memory (reference: torch fp32)")
        for (inner, outs), kind, rows in itertools.product(
            LARGE, (torch.float32, torch.bfloat16), (1, 16, 128)
        ):
            ours = large_linear(rows, inner, outs, kind)
            theirs = large_linear(rows, inner, outs, torch.float32)
            calls = [lambda o=ours: o(cpu), lambda t=theirs: t(reference)]  # type: ignore[misc]
            work = rows * inner * outs, inner * outs * kind.itemsize
            name = f"{inner}->{outs} {str(kind).removeprefix('torch.')}"
            add(large, name, rows, fastest(calls, options.seconds), work, limit)
        console.print(large)
    console.print(
        f"{options.threads} threads; measured limits: {limit[0] / 1e9:.0f} GFLOP/s, "
        f"{limit[1] / 1e9:.1f} GB/s"
    )


if __name__ == "__main__":
    main()
