"""The GPU's kernels against the reference. Where there is no GPU but Triton is installed,
`TRITON_INTERPRET=1 pytest tests/kernels/test_triton.py` runs them on the CPU."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from ingle.kernels import reference
from tests.kernels.test_documents import CASES, inputs, starts_of

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="neither a GPU nor the interpreter"
)
MORE = [(2, 48, 32, [64, 64, 1, 200]), (8, 48, 32, [1] * 70 + [130]), (1, 16, 16, [640, 640])]


def far(mine: Tensor, theirs: Tensor) -> float:
    """Norm of the difference over the norm of what it should be."""
    return float((mine.double().cpu() - theirs.double()).norm() / theirs.double().norm())


@pytest.fixture(autouse=True)
def native() -> None:
    """In place of the native library's: these kernels need no C++ compiler."""


@pytest.mark.parametrize("heads,width,value,lengths", CASES + MORE)
@pytest.mark.parametrize("dtype,limit", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_attention_over_documents_is_the_references(
    heads: int, width: int, value: int, lengths: list[int], dtype: torch.dtype, limit: float
) -> None:
    from ingle.kernels import triton

    if INTERPRETED and dtype == torch.bfloat16:
        pytest.skip("NumPy has no bf16")
    starts = starts_of(lengths)
    q, k, v, grad = (x.to(dtype) for x in inputs(heads, width, value, len(starts)))
    wide = [x.double() for x in (q, k, v)]
    y, log_sums = reference.document_attention(*wide, starts, 0.3)
    wanted = (
        y,
        log_sums,
        *reference.document_attention_grad(*wide, starts, 0.3, log_sums, grad.double()),
    )
    q, k, v, grad, starts = (x.to(DEVICE) for x in (q, k, v, grad, starts))
    y, log_sums = triton.document_attention(q, k, v, starts, 0.3)
    found = y, log_sums, *triton.document_attention_grad(q, k, v, starts, 0.3, log_sums, grad)
    for mine, theirs in zip(found, wanted, strict=True):
        if theirs.norm() > 1e-6:  # of a document of one token q and k have no gradient
            assert far(mine, theirs) < limit
        else:
            assert float(mine.float().abs().max()) < limit
