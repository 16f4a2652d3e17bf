"""DeepSeek-V3, V3-0324, R1, R1-0528, V3.1 (arXiv 2412.19437): MLA, sigmoid scores with a selection
bias, groups that count by their two best experts, and multi-token prediction. What we train is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ingle.models.config import WithExperts, WithMLA


@dataclass(frozen=True, kw_only=True)
class DeepseekV3Config(WithExperts, WithMLA):
    """Sizes of a `deepseek_v3` model."""

    model_type = "deepseek_v3"
    architecture = "DeepseekV3ForCausalLM"
    fixed: ClassVar[dict[str, Any]] = {
        "hidden_act": "silu", "attention_bias": False, "scoring_func": "sigmoid",
        "topk_method": "noaux_tc", "rope_interleave": True,
    }  # fmt: skip
    scoring = "sigmoid"
    router_bias = True

    num_nextn_predict_layers: int = 0
    norm_topk_prob: bool = True
    initializer_range: float = 0.006  # DeepSeek-V2's and V3's own value
    bos_token_id: int | None = 0
    eos_token_id: int | tuple[int, ...] | None = 1

    @property
    def mtp_layers(self) -> int:
        return self.num_nextn_predict_layers
