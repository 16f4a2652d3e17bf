"""Finds and opens the shared object with the native kernels, once per process."""

from __future__ import annotations

import ctypes
import os
import sysconfig
from collections.abc import Callable
from pathlib import Path

from ingle.kernels.build import SOURCES, runnable_targets

_ABI_VERSION = 3  # ingle_abi_version in native/library.cpp
_KERNELS = (
    "linear", "rms_norm", "rope", "write_latent", "mla_attention", "route", "mlp", "experts",
    "write_keys", "gqa_attention", "document_attention", "document_attention_grad", "decoder",
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
