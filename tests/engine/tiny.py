"""A tiny model with random weights over a vocabulary of bytes, for tests of what it writes."""

from __future__ import annotations

from functools import cache

import torch

from ingle.engine.config import EngineConfig
from ingle.engine.engine import Engine
from ingle.engine.grammar import GrammarCompiler
from ingle.kernels import cpu
from ingle.models import CausalLM, DeepseekV3Config, build_model
from ingle.prompt.tokenizer import Tokenizer
from tests.prompt.vocabulary import byte_tokenizer

CONFIG = DeepseekV3Config(
    vocab_size=320,  # more rows than the tokenizer has tokens for, as in published models
    hidden_size=32,
    intermediate_size=48,
    moe_intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    n_routed_experts=4,
    num_experts_per_tok=2,
    kv_lora_rank=16,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=8,
    n_group=2,
    topk_group=1,
    num_nextn_predict_layers=1,
    max_position_embeddings=1024,
    initializer_range=0.25,
    eos_token_id=None,
)


@cache
def tokenizer() -> Tokenizer:
    return byte_tokenizer()


@cache
def model() -> CausalLM:
    torch.set_num_threads(1)
    kernels = "cpu" if cpu.available() else "reference"
    return build_model(CONFIG, seed=1, kernels=kernels).eval().requires_grad_(False)


def engine(words: Tokenizer | None = None, **config: object) -> Engine:
    return Engine(model(), words or tokenizer(), EngineConfig(**config))  # type: ignore[arg-type]


@cache
def compiler() -> GrammarCompiler:
    made = engine(pages=1)
    return GrammarCompiler(tokenizer(), made.vocab, made.eos_ids)


def closing() -> dict[int, float]:
    """A bias towards what ends strings, objects and arrays: a random model rarely gets there."""
    return {tokenizer().encode(text)[0]: 4.0 for text in '"}]'}
