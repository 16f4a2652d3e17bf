"""Write a checkpoint of a released shape in the official layout, with random weights.

    python bench/random_checkpoint.py SHAPE FOLDER [--layers N] [--shard-gb 4]

Names, shapes, dtypes, shards and index are those of the published files; numbers are normal with
standard deviation 0.02, drawn once and reused shifted, since only sizes matter here. The tokenizer
is this repository's byte-level one.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ingle.models.causal_lm import CausalLM
from ingle.models.config import ModelConfig
from ingle.models.read import parse_config
from ingle.training.tokenizer import build_tokenizer
from ingle.weights.names import FP32, sources
from ingle.weights.safetensors import write_tensors

_V2_LITE: dict[str, Any] = {
    "model_type": "deepseek_v2", "vocab_size": 102400, "hidden_size": 2048,
    "intermediate_size": 10944, "moe_intermediate_size": 1408, "num_hidden_layers": 27,
    "num_attention_heads": 16, "n_routed_experts": 64, "n_shared_experts": 2,
    "num_experts_per_tok": 6, "first_k_dense_replace": 1, "kv_lora_rank": 512,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "topk_method": "greedy",
    "norm_topk_prob": False, "routed_scaling_factor": 1.0, "max_position_embeddings": 163840,
    "rope_theta": 10000, "rope_scaling": {
        "type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
        "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707,
    },
}  # fmt: skip


def _qwen(hidden: int, inner: int, heads: int, key_heads: int, vocabulary: int) -> dict[str, Any]:
    return {
        "model_type": "qwen2", "vocab_size": vocabulary, "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": 28, "num_attention_heads": heads,
        "num_key_value_heads": key_heads, "max_position_embeddings": 131072, "rope_theta": 10000,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    }  # fmt: skip


SHAPES = {
    "V2-Lite": _V2_LITE,
    "R1-Distill-Qwen-1.5B": _qwen(1536, 8960, 12, 2, 151936),
    "R1-Distill-Qwen-7B": _qwen(3584, 18944, 28, 4, 152064),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, help="fewer layers, where the disk is small")
    parser.add_argument("--shard-gb", type=float, default=4.0)
    args = parser.parse_args()
    raw = SHAPES[args.shape] | {"bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16"}
    if args.layers:
        raw["num_hidden_layers"] = args.layers
    started = time.perf_counter()
    size = write(parse_config(raw), raw, args.folder, int(args.shard_gb * 1e9))
    seconds = time.perf_counter() - started
    print(f"{size / 1e9:.2f} GB in {seconds:.0f} s: {args.folder}")


def write(config: ModelConfig, raw: dict[str, Any], folder: Path, shard_bytes: int) -> int:
    """All files of the folder; returns the bytes of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer(folder, min(512, config.vocab_size), config.max_position_embeddings)
    (folder / "config.json").write_text(json.dumps(raw, indent=2) + "\n", "utf-8")
    with torch.device("meta"):
        model = CausalLM(replace(config), "reference")
    shapes = {
        source.name: source.shape
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if name in model.state_dict()
        for source in sources(name, tensor.shape)
    }
    pool = torch.randn(1 << 26).mul_(0.02).bfloat16()
    weight_map: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    number = total = held = 0
    for index, (name, shape) in enumerate(shapes.items()):
        shard[name] = random_tensor(name, shape, pool, index)
        held += shard[name].nbytes
        if held >= shard_bytes or index == len(shapes) - 1:
            number += 1
            file = f"model-{number:05d}.safetensors"
            write_tensors(folder / file, shard, {"format": "pt"})
            weight_map |= dict.fromkeys(shard, file)
            total, held, shard = total + held, 0, {}
    index_file = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_file), "utf-8")
    return total


def random_tensor(name: str, shape: torch.Size, pool: Tensor, index: int) -> Tensor:
    """bf16 of the shape: norms near one, the rest cut from the pool at a place of its own."""
    count = shape.numel()
    start = index * 7919 % (len(pool) // 2)
    flat = pool[start : start + count]
    if count > len(flat):
        flat = torch.cat([flat, pool.repeat(-(-count // len(pool)))])[:count]
    if "norm" in name:
        return flat.view(shape) + 1.0
    return flat.clone().view(shape).float() if name.endswith(FP32) else flat.clone().view(shape)


if __name__ == "__main__":
    main()
