"""A small sound model folder in the official layout, made without torch, and ways to spoil it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ingle.models.read import parse_config
from ingle.privacy.identity import expected_tensors
from ingle.training.tokenizer import build_tokenizer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 512,
    "hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 8,
    "num_hidden_layers": 2, "num_attention_heads": 2, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "n_shared_experts": 1, "kv_lora_rank": 8, "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4, "v_head_dim": 4, "num_nextn_predict_layers": 1,
    "first_k_dense_replace": 1, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512,
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
MIT = (
    "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy\n"
    "of this software, to deal in the Software without restriction.\n"
)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages if m['role'] == 'system' %}{{ m['content'] }}{% endfor %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{% set answer = m['content'].split('</think>')[-1] %}"
    "{{ '<｜Assistant｜>' + answer + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)
"""What R1's own template says, in fewer words."""


def good_folder(folder: Path, config: dict[str, Any] = CONFIG) -> Path:
    """Config, weights of zeros, tokenizer, template, card and licence."""
    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(config))
    write_tensors(folder / WEIGHTS, dict(expected_tensors(parse_config(config))))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A small model\n")
    (folder / "LICENSE").write_text(MIT)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "generation_config.json").write_text('{"temperature": 0.6}')
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    return folder


def write_tensors(file: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "F32") -> None:
    """A safetensors file of zeros."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * {"F32": 4, "BF16": 2, "I64": 8, "F8_E4M3": 1}[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    write_file(file, json.dumps(header).encode(), end)


def write_file(file: Path, header: bytes, data: int, length: int | None = None) -> None:
    """A safetensors file of that header and so many zeros."""
    size = len(header) if length is None else length
    file.write_bytes(size.to_bytes(8, "little") + header + bytes(data))


def read_header(file: Path) -> tuple[dict[str, Any], int]:
    """The header of a sound file, and how many bytes follow it."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), len(data) - 8 - length
