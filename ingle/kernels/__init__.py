"""How a block is computed. One signature per kernel, several tiers, one chosen at load.

`reference` is plain torch and always right; `cpu` is the native tier; `triton` has what training
on a GPU needs and is chosen by where tensors lie (layers/documents.py). A tier is a module with the
functions of `reference`; nothing is registered, `select` is the whole choice.
"""

from __future__ import annotations

from types import ModuleType


def select(tier: str = "auto") -> ModuleType:
    """Kernel module of a tier: "reference", "cpu", or "auto" (cpu where it was built)."""
    from ingle.kernels import reference

    if tier == "reference":
        return reference
    from ingle.kernels import cpu

    if cpu.available():
        return cpu
    if tier == "cpu":
        raise RuntimeError(cpu.unavailable_reason())
    return reference
