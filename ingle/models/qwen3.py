"""Qwen 3: R1-0528-Qwen3-8B. Llama with a norm on every query and key head."""

from __future__ import annotations

from dataclasses import dataclass

from ingle.models.config import WithGQA


@dataclass(frozen=True, kw_only=True)
class Qwen3Config(WithGQA):
    """Sizes of a `qwen3` model."""

    model_type = "qwen3"
    architecture = "Qwen3ForCausalLM"
    qk_norm = True
