"""DeepSeek MoE-16B (arXiv 2401.06066): llama attention, DeepSeekMoE with softmax scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ingle.models.config import WithExperts, WithGQA


@dataclass(frozen=True, kw_only=True)
class DeepseekConfig(WithExperts, WithGQA):
    """Sizes of a `deepseek` model."""

    model_type = "deepseek"
    architecture = "DeepseekForCausalLM"
    fixed: ClassVar[dict[str, Any]] = {
        "hidden_act": "silu",
        "attention_bias": False,
        "scoring_func": "softmax",
    }

    @classmethod
    def normalise(cls, raw: dict[str, Any]) -> dict[str, Any]:
        # the published code renormalises only where there is more than one expert to share among
        return raw | ({"norm_topk_prob": False} if raw.get("num_experts_per_tok") == 1 else {})
