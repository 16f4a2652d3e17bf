"""Kernels for GPUs in Triton: attention over packed documents, which training runs.

A program computes a block of rows of one head, in fp32 but for the products of bf16 inputs
(FlashAttention-2, arXiv 2307.08691). It walks only over blocks that its documents reach into, so
the cost is that of the documents and not of the stream's square.

Legend: T tokens of the stream, H heads, Q query width, V value width.
"""
# mypy: allow-untyped-defs, allow-untyped-decorators

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

_BLOCK = 64  # rows and columns a program holds at once


@triton.jit
def _rows(
    pointer, rows, head, length, heads: tl.constexpr, width: tl.constexpr, wide: tl.constexpr
):
    """Rows of one head of a [T, H, width] tensor, filled up with zeros to a power of two."""
    columns = tl.arange(0, wide)
    at = (rows[:, None] * heads + head) * width + columns[None, :]
    inside = (rows[:, None] < length) & (columns[None, :] < width)
    return tl.load(pointer + at, mask=inside, other=0.0)


@triton.jit
def _store(
    pointer, values, rows, head, length, heads: tl.constexpr, width: tl.constexpr,
    wide: tl.constexpr,
):  # fmt: skip
    columns = tl.arange(0, wide)
    at = (rows[:, None] * heads + head) * width + columns[None, :]
    inside = (rows[:, None] < length) & (columns[None, :] < width)
    tl.store(pointer + at, values.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def _scores(q, k, rows, columns, starts, scale, precision: tl.constexpr):
    """Scores of a block; minus infinity where a row does not see a column."""
    scores = tl.dot(q, tl.trans(k), input_precision=precision) * scale
    seen = (columns[None, :] <= rows[:, None]) & (columns[None, :] >= starts[:, None])
    return tl.where(seen, scores, float("-inf"))


@triton.jit
def _weights(q, k, rows, columns, starts, log_sums, scale, precision: tl.constexpr):
    """Attention weights of a block, from the log-sums of its rows."""
    scores = _scores(q, k, rows, columns, starts, scale, precision)
    return tl.exp(scores - log_sums[:, None])


@triton.jit
def _forward(
    q_p, k_p, v_p, starts_p, y_p, log_sums_p, scale, length, heads: tl.constexpr,
    query: tl.constexpr, query_wide: tl.constexpr, value: tl.constexpr, value_wide: tl.constexpr,
    block: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """y and log-sums of a block of query rows."""
    head, top = tl.program_id(1), tl.program_id(0) * block
    rows = top + tl.arange(0, block)
    starts = tl.load(starts_p + rows, mask=rows < length, other=length)
    q = _rows(q_p, rows, head, length, heads, query, query_wide)
    most = tl.full([block], float("-inf"), tl.float32)
    total = tl.zeros([block], tl.float32)
    y = tl.zeros([block, value_wide], tl.float32)
    first = tl.load(starts_p + top) // block * block  # starts never decrease
    for left in range(first, top + block, block):
        columns = left + tl.arange(0, block)
        k = _rows(k_p, columns, head, length, heads, query, query_wide)
        v = _rows(v_p, columns, head, length, heads, value, value_wide)
        scores = _scores(q, k, rows, columns, starts, scale, precision)
        larger = tl.maximum(most, tl.max(scores, 1))
        from_here = tl.where(larger == float("-inf"), 0.0, larger)  # a row that sees nothing yet
        weights = tl.exp(scores - from_here[:, None])
        shrink = tl.exp(most - from_here)
        total = total * shrink + tl.sum(weights, 1)
        y = y * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=precision)
        most = larger
    _store(y_p, y / total[:, None], rows, head, length, heads, value, value_wide)
    tl.store(log_sums_p + rows * heads + head, most + tl.log(total), mask=rows < length)


@triton.jit
def _query_grad(
    q_p, k_p, v_p, starts_p, log_sums_p, y_grad_p, q_grad_p, means_p, scale, length,
    heads: tl.constexpr, query: tl.constexpr, query_wide: tl.constexpr, value: tl.constexpr,
    value_wide: tl.constexpr, block: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """The gradient of a block of query rows, and for the keys' each row's mean slope, which is
    what softmax takes off: `sum_j weight_j (y_grad . v_j)`."""
    head, top = tl.program_id(1), tl.program_id(0) * block
    rows = top + tl.arange(0, block)
    starts = tl.load(starts_p + rows, mask=rows < length, other=length)
    log_sums = tl.load(log_sums_p + rows * heads + head, mask=rows < length, other=0.0)
    q = _rows(q_p, rows, head, length, heads, query, query_wide)
    y_grad = _rows(y_grad_p, rows, head, length, heads, value, value_wide)
    first = tl.load(starts_p + top) // block * block
    mean = tl.zeros([block], tl.float32)
    for left in range(first, top + block, block):
        columns = left + tl.arange(0, block)
        k = _rows(k_p, columns, head, length, heads, query, query_wide)
        v = _rows(v_p, columns, head, length, heads, value, value_wide)
        weights = _weights(q, k, rows, columns, starts, log_sums, scale, precision)
        mean += tl.sum(weights * tl.dot(y_grad, tl.trans(v), input_precision=precision), 1)
    q_grad = tl.zeros([block, query_wide], tl.float32)
    for left in range(first, top + block, block):
        columns = left + tl.arange(0, block)
        k = _rows(k_p, columns, head, length, heads, query, query_wide)
        v = _rows(v_p, columns, head, length, heads, value, value_wide)
        weights = _weights(q, k, rows, columns, starts, log_sums, scale, precision)
        slopes = tl.dot(y_grad, tl.trans(v), input_precision=precision) - mean[:, None]
        q_grad += tl.dot((weights * slopes).to(k.dtype), k, input_precision=precision)
    _store(q_grad_p, q_grad * scale, rows, head, length, heads, query, query_wide)
    tl.store(means_p + rows * heads + head, mean, mask=rows < length)


@triton.jit
def _key_grad(
    q_p, k_p, v_p, starts_p, ends_p, log_sums_p, y_grad_p, means_p, k_grad_p, v_grad_p, scale,
    length, heads: tl.constexpr, query: tl.constexpr, query_wide: tl.constexpr, value: tl.constexpr,
    value_wide: tl.constexpr, block: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """The gradients of a block of keys and values: over the rows from here to the end of the
    document of its last one."""
    head, left = tl.program_id(1), tl.program_id(0) * block
    columns = left + tl.arange(0, block)
    k = _rows(k_p, columns, head, length, heads, query, query_wide)
    v = _rows(v_p, columns, head, length, heads, value, value_wide)
    k_grad = tl.zeros([block, query_wide], tl.float32)
    v_grad = tl.zeros([block, value_wide], tl.float32)
    bottom = tl.load(ends_p + tl.minimum(left + block, length) - 1)
    for top in range(left, bottom, block):
        rows = top + tl.arange(0, block)
        starts = tl.load(starts_p + rows, mask=rows < length, other=length)
        log_sums = tl.load(log_sums_p + rows * heads + head, mask=rows < length, other=0.0)
        mean = tl.load(means_p + rows * heads + head, mask=rows < length, other=0.0)
        q = _rows(q_p, rows, head, length, heads, query, query_wide)
        y_grad = _rows(y_grad_p, rows, head, length, heads, value, value_wide)
        weights = _weights(q, k, rows, columns, starts, log_sums, scale, precision)
        v_grad += tl.dot(tl.trans(weights).to(y_grad.dtype), y_grad, input_precision=precision)
        slopes = tl.dot(y_grad, tl.trans(v), input_precision=precision) - mean[:, None]
        slopes = tl.trans(weights * slopes).to(q.dtype)
        k_grad += tl.dot(slopes, q, input_precision=precision)
    _store(k_grad_p, k_grad * scale, columns, head, length, heads, query, query_wide)
    _store(v_grad_p, v_grad, columns, head, length, heads, value, value_wide)


def document_attention(
    q_THQ: Tensor, k_THQ: Tensor, v_THV: Tensor, starts_T: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """As in kernels/reference.py; the log-sums are fp32 whatever the inputs are."""
    q, k, v = q_THQ.contiguous(), k_THQ.contiguous(), v_THV.contiguous()
    y, log_sums = torch.empty_like(v), q.new_empty(q.shape[:2], dtype=torch.float32)
    grid, sizes = _launch(q, v)
    _forward[grid](q, k, v, starts_T.contiguous(), y, log_sums, scale, len(q), **sizes)
    return y, log_sums


def document_attention_grad(
    q_THQ: Tensor, k_THQ: Tensor, v_THV: Tensor, starts_T: Tensor, scale: float,
    log_sum_TH: Tensor, y_grad_THV: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As in kernels/reference.py."""
    q, k, v, starts = (x.contiguous() for x in (q_THQ, k_THQ, v_THV, starts_T))
    log_sums, y_grad = log_sum_TH.contiguous(), y_grad_THV.contiguous()
    q_grad, k_grad, v_grad = (torch.empty_like(x) for x in (q, k, v))
    means = torch.empty_like(log_sums)
    grid, sizes = _launch(q, v)
    ends = torch.searchsorted(starts, starts, right=True, out_int32=True)
    _query_grad[grid](q, k, v, starts, log_sums, y_grad, q_grad, means, scale, len(q), **sizes)
    _key_grad[grid](
        q, k, v, starts, ends, log_sums, y_grad, means, k_grad, v_grad, scale, len(q), **sizes
    )
    return q_grad, k_grad, v_grad


def _launch(q_THQ: Tensor, v_THV: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """Programs in both directions, and the sizes that are compiled in. tl.dot wants at least 16."""
    length, heads, query = q_THQ.shape
    value = v_THV.shape[2]
    return (triton.cdiv(length, _BLOCK), heads), {
        "heads": heads, "query": query, "query_wide": max(16, triton.next_power_of_2(query)),
        "value": value, "value_wide": max(16, triton.next_power_of_2(value)), "block": _BLOCK,
        "precision": "ieee" if q_THQ.dtype == torch.float32 else "tf32",
    }  # fmt: skip
