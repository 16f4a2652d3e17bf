"""DeepSeek-V2, V2-Lite, Coder-V2 and V2.5 (arXiv 2405.04434): MLA, softmax scores, whose experts
come from the groups with the largest best score (`group_limited_greedy`) or from all (`greedy`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ingle.errors import ConfigError
from ingle.models.config import WithExperts, WithMLA

_METHODS = ("greedy", "group_limited_greedy")


@dataclass(frozen=True, kw_only=True)
class DeepseekV2Config(WithExperts, WithMLA):
    """Sizes of a `deepseek_v2` model."""

    model_type = "deepseek_v2"
    architecture = "DeepseekV2ForCausalLM"
    # weights are never renormalised: what the official code does then is not what its port does
    fixed: ClassVar[dict[str, Any]] = {
        "hidden_act": "silu", "attention_bias": False, "scoring_func": "softmax",
        "norm_topk_prob": False,
    }  # fmt: skip

    @classmethod
    def normalise(cls, raw: dict[str, Any]) -> dict[str, Any]:
        method = raw.get("topk_method", "greedy")
        if method not in _METHODS:
            raise ConfigError(
                f"config.json: topk_method {method!r} is not supported, only {', '.join(_METHODS)}."
            )
        groups = {"n_group": 1, "topk_group": 1} if method == "greedy" else {}
        return raw | groups

    def to_json(self) -> dict[str, Any]:
        grouped = self.n_group > 1
        return super().to_json() | {"topk_method": _METHODS[grouped], "moe_layer_freq": 1}
