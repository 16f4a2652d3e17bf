"""ingle: DeepSeek's whole recipe on your own hardware.

`LLM`, `SamplingParams` and `load_model` are resolved on first use, so that importing the package
(and `ingle --help`) does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["LLM", "SamplingParams", "__version__", "load_model"]

if TYPE_CHECKING:
    from ingle.engine.llm import LLM
    from ingle.engine.request import SamplingParams
    from ingle.models import load_model

_HOMES = {
    "LLM": "ingle.engine.llm",
    "SamplingParams": "ingle.engine.request",
    "load_model": "ingle.models",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ingle' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
