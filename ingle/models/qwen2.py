"""Qwen 2: R1-Distill-Qwen 1.5B, 7B, 14B and 32B. Llama with biases on query, key and value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ingle.models.config import WithGQA


@dataclass(frozen=True, kw_only=True)
class Qwen2Config(WithGQA):
    """Sizes of a `qwen2` model."""

    model_type = "qwen2"
    architecture = "Qwen2ForCausalLM"
    fixed: ClassVar[dict[str, Any]] = {"hidden_act": "silu"}
    qkv_bias = True
