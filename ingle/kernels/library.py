"""Finds and opens the shared object with the native kernels, once per process, and says how
operands and results cross its C boundary."""

from __future__ import annotations

import ctypes
import os
import sysconfig
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ingle.kernels.build import SOURCES, runnable_targets
from ingle.kernels.quantized import Quantized

_ABI_VERSION = 10  # ingle_abi_version in native/library.cpp
_KERNELS = (
    "linear", "rms_norm", "rope", "write_latent", "mla_attention", "route", "mlp", "experts",
    "write_keys", "gqa_attention", "document_attention", "document_attention_grad",
    "projection", "projection_grad", "feed_forward", "feed_forward_grad", "cross_entropy",
    "decoder", "quantize",
)  # fmt: skip


def _open(path: Path) -> ctypes.CDLL:
    """Load one shared object and declare its functions; OSError when it does not fit."""
    library = ctypes.CDLL(str(path))
    try:
        version = library.ingle_abi_version()
    except AttributeError:
        version = None
    if version != _ABI_VERSION:
        raise OSError(f"{path.name} was built from other sources")
    for kernel in _KERNELS:
        getattr(library, f"ingle_{kernel}").argtypes = [ctypes.c_char_p]
    return library


def _load() -> tuple[ctypes.CDLL | None, str]:
    """The fastest library that runs here, or None and the reason."""
    # an editable install keeps what CMake made in site-packages, away from the sources
    folders = [SOURCES, Path(sysconfig.get_path("platlib")) / "ingle" / "kernels" / "native"]
    wanted = os.environ.get("INGLE_CPU_TARGET")
    reason = "the native CPU kernels were not built, so the slower plain torch kernels are used"
    for target in [wanted] if wanted else runnable_targets():
        for folder in folders:
            path = folder / f"{target}.so"
            if path.exists():
                try:
                    return _open(path), ""
                except OSError as error:
                    reason = f"the native CPU kernels could not be loaded ({error})"
    return None, (
        f"{reason}; install a C++ compiler (g++ or clang++) and run "
        "`python -m ingle.kernels.cpu --build`"
    )


LIBRARY, REASON = _load()


def bound(kernel: str) -> Callable[[bytes], int]:
    """A function of the library; without one, calls fall through before they reach it."""
    return getattr(LIBRARY, f"ingle_{kernel}") if LIBRARY else lambda _: 0


def check(status: int) -> None:
    """Raise what a kernel's return value says."""
    if status == 1:
        raise IndexError("a position, slot, page, sequence, expert or group is out of range")
    if status == 2:
        raise MemoryError("not enough memory for the kernel's scratch space")


Weight = Tensor | Quantized
_KINDS = {"int8": 2, "int4": 3, "fp8": 4}  # enum Kind in native/api.h; 0 is fp32, 1 is bf16


def stored(weight: Weight) -> tuple[int, int, int] | None:
    """A weight as the struct of native/api.h (data, scale, kind); None if kernels cannot read it.

    The caller keeps the weight alive while the addresses are in use.
    """
    if isinstance(weight, Quantized):
        data, scale = weight.data, weight.scale
        if data.is_cpu and data.is_contiguous() and scale.is_contiguous():
            return data.data_ptr(), scale.data_ptr(), _KINDS[weight.kind]
    elif weight.is_cpu and weight.is_contiguous():
        kind = weight.dtype
        if not (weight.requires_grad and torch.is_grad_enabled()) and (
            kind is torch.float32 or kind is torch.bfloat16
        ):
            return weight.data_ptr(), 0, kind is torch.bfloat16
    return None


def native(x: Tensor, weight: Tensor) -> bool:
    """Whether one pair of operands can run natively: fp32 rows, weights in fp32 or bf16, all on the
    CPU, and no gradient asked for."""
    kind = weight.dtype
    return (
        x.dtype is torch.float32
        and (kind is torch.float32 or kind is torch.bfloat16)
        and x.is_cpu
        and weight.is_cpu
        and weight.is_contiguous()
        and not ((x.requires_grad or weight.requires_grad) and torch.is_grad_enabled())
        and LIBRARY is not None
    )


def alike(first: Tensor, *others: Tensor) -> bool:
    """Whether other weights are stored as the first one is, which `native` has looked at."""
    kind = first.dtype
    for other in others:
        if other.dtype is not kind or not other.is_cpu or not other.is_contiguous():
            return False
        if other.requires_grad and torch.is_grad_enabled():
            return False
    return True


def ints(x: Tensor) -> Tensor:
    return x.contiguous() if x.dtype is torch.int32 else x.int().contiguous()
