"""Cache bytes per token: by formula, as allocated, and what full keys and values would take.

python bench/cache_bytes.py [MODEL]
"""

from __future__ import annotations

import sys

import torch

from ingle.engine.cache import LatentCache
from ingle.models import load_model
from ingle.models.batch import PAGE_TOKENS
from ingle.models.deepseek_v3 import DeepseekV3Config


def row(name: str, c: DeepseekV3Config, dtype: torch.dtype, pages: int) -> str:
    """One line of the table; pages are really allocated and their storage is measured."""
    size = dtype.itemsize
    formula = c.num_hidden_layers * c.cache_width * size
    cache = LatentCache((c.num_hidden_layers, pages, PAGE_TOKENS, c.cache_width), dtype, mtp=False)
    measured = cache.latents_LPGC.untyped_storage().nbytes() / (pages * PAGE_TOKENS)
    assert measured == formula == cache.bytes_per_token
    full = c.num_hidden_layers * c.num_attention_heads * (c.qk_head_dim + c.v_head_dim) * size
    return (
        f"{name:<28}{str(dtype).removeprefix('torch.'):<10}{formula:>9,}{measured:>12,.1f}"
        f"{full:>13,}{full / formula:>8.1f}x"
    )


def main() -> None:
    print(f"{'':<28}{'':<10}{'formula':>9}{'allocated':>12}{'full K + V':>13}{'':>8}")
    config = load_model(sys.argv[1] if len(sys.argv) > 1 else None).config
    for dtype in (torch.float32, torch.bfloat16):
        print(row("this model", config, dtype, 100))
    v3 = DeepseekV3Config(
        vocab_size=129280, hidden_size=7168, intermediate_size=18432, moe_intermediate_size=2048,
        num_hidden_layers=61, num_attention_heads=128, n_routed_experts=256, num_experts_per_tok=8,
        n_group=8, topk_group=4, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128,
        qk_rope_head_dim=64, v_head_dim=128, first_k_dense_replace=3,
    )  # fmt: skip
    print(row("DeepSeek-V3 and R1", v3, torch.bfloat16, 4))


if __name__ == "__main__":
    main()
