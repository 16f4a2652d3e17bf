"""One dial: nano, mini, tiny. Each is a model shape; every organ of DeepSeek-V3 is in all three."""

from __future__ import annotations

from typing import Any

from ingle.errors import IngleError
from ingle.models.deepseek_v3 import DeepseekV3Config

VOCABULARY = 512


def model_preset(name: str) -> DeepseekV3Config:
    """Sizes of a preset; raises IngleError for a name that is none."""
    shapes: dict[str, dict[str, Any]] = {
        # 1M: tests and rehearsals
        "nano": {
            "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
            "intermediate_size": 256, "moe_intermediate_size": 64, "n_routed_experts": 8,
            "num_experts_per_tok": 2, "kv_lora_rank": 32, "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 8, "v_head_dim": 16,
        },
        # 4M + 1M of MTP module: what two CPU cores train in an evening
        "mini": {
            "hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 6,
            "intermediate_size": 512, "moe_intermediate_size": 128, "n_routed_experts": 8,
            "num_experts_per_tok": 2, "kv_lora_rank": 64, "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 16, "v_head_dim": 32,
        },
        # 15M: one GPU
        "tiny": {
            "hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 8,
            "intermediate_size": 640, "moe_intermediate_size": 128, "n_routed_experts": 16,
            "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2, "q_lora_rank": 128,
            "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32,
        },
    }  # fmt: skip
    if name not in shapes:
        raise IngleError(f"No preset {name!r}; choose one of {', '.join(shapes)}.")
    return DeepseekV3Config(
        vocab_size=VOCABULARY, max_position_embeddings=1024, num_nextn_predict_layers=1,
        routed_scaling_factor=1.0, initializer_range=0.02, rope_theta=1000.0, **shapes[name],
    )  # fmt: skip
