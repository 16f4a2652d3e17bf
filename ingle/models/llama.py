"""Llama: DeepSeek LLM 7B and 67B, Coder 1.3B to 33B, Math 7B, R1-Distill-Llama 8B and 70B."""

from __future__ import annotations

from dataclasses import dataclass

from ingle.models.config import WithGQA


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(WithGQA):
    """Sizes of a `llama` model; `rope_scaling` is none, linear (Coder) or llama3 (the distills)."""

    model_type = "llama"
    architecture = "LlamaForCausalLM"
