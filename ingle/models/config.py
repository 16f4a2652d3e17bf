"""Read a Hugging Face `config.json` into a typed, bounded config.

Numbers are checked before anything is allocated: a hostile or damaged config must end in a
`ConfigError` that names the key, never in a crash or an attempt to allocate terabytes.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ingle.errors import ConfigError, ModelNotFoundError


@dataclass(frozen=True)
class Yarn:
    """YaRN context extension (arXiv 2309.00071); keys as in DeepSeek's `rope_scaling`."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0


@dataclass(frozen=True)
class DeepseekV3Config:
    """Sizes of a `deepseek_v3` model; every name is the one in its `config.json`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    n_routed_experts: int
    num_experts_per_tok: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    q_lora_rank: int | None = None
    n_shared_experts: int = 1
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    first_k_dense_replace: int = 1
    num_nextn_predict_layers: int = 0
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    yarn: Yarn | None = None
    rope_interleave: bool = True
    tie_word_embeddings: bool = False
    initializer_range: float = 0.006  # DeepSeek-V2's and V3's own value
    bos_token_id: int | None = 0
    eos_token_id: int | tuple[int, ...] | None = 1

    def __post_init__(self) -> None:
        _check(self)

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def cache_width(self) -> int:
        """Values cached per token and layer: the latent and the one shared rotary key."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def eos_ids(self) -> tuple[int, ...]:
        eos = self.eos_token_id
        return () if eos is None else (eos,) if isinstance(eos, int) else eos

    def to_json(self) -> dict[str, Any]:
        """The `config.json` of this model, readable by other engines."""
        out = {k: v for k, v in asdict(self).items() if k != "yarn"}
        if self.yarn is not None:
            out["rope_scaling"] = {"type": "yarn", "rope_type": "yarn", **asdict(self.yarn)}
        return out | {
            "architectures": ["DeepseekV3ForCausalLM"],
            "model_type": "deepseek_v3",
            "hidden_act": "silu",
            "scoring_func": "sigmoid",
            "topk_method": "noaux_tc",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "num_key_value_heads": self.num_attention_heads,
            "head_dim": self.qk_rope_head_dim,  # transformers sizes its rotary table by it
        }


# key: (smallest, largest) accepted. The ceilings are far above any released model, far below harm.
_BOUNDS: dict[str, tuple[float, float]] = {
    "vocab_size": (2, 1 << 21),
    "hidden_size": (1, 1 << 16),
    "intermediate_size": (1, 1 << 18),
    "moe_intermediate_size": (1, 1 << 16),
    "num_hidden_layers": (1, 512),
    "num_attention_heads": (1, 1024),
    "n_routed_experts": (1, 4096),
    "num_experts_per_tok": (1, 256),
    "kv_lora_rank": (1, 1 << 14),
    "q_lora_rank": (1, 1 << 15),
    "qk_nope_head_dim": (1, 4096),
    "qk_rope_head_dim": (2, 4096),
    "v_head_dim": (1, 4096),
    "n_shared_experts": (1, 64),
    "n_group": (1, 4096),
    "topk_group": (1, 4096),
    "routed_scaling_factor": (1e-6, 1e6),
    "first_k_dense_replace": (0, 512),
    "num_nextn_predict_layers": (0, 8),
    "max_position_embeddings": (1, 1 << 24),
    "rms_norm_eps": (0.0, 1.0),
    "rope_theta": (1.0, 1e12),
    "initializer_range": (0.0, 10.0),
}
_MAX_PARAMETERS = 4e12
_MAX_CONFIG_BYTES = 4 << 20


def _check(c: DeepseekV3Config) -> None:
    for key, (low, high) in _BOUNDS.items():
        value = getattr(c, key)
        if value is not None and not low <= value <= high:  # NaN fails too
            raise ConfigError(f"config.json: {key} is {value}, expected {low:g} to {high:g}.")
    if c.qk_rope_head_dim % 2:
        raise ConfigError(f"config.json: qk_rope_head_dim is {c.qk_rope_head_dim}, must be even.")
    if c.n_routed_experts % c.n_group:
        raise ConfigError(
            f"config.json: n_group {c.n_group} does not divide n_routed_experts "
            f"{c.n_routed_experts}."
        )
    per_group = c.n_routed_experts // c.n_group
    if c.topk_group > c.n_group or c.num_experts_per_tok > c.topk_group * per_group:
        raise ConfigError(
            f"config.json: num_experts_per_tok {c.num_experts_per_tok} experts cannot be chosen "
            f"from topk_group {c.topk_group} of {c.n_group} groups of {per_group}."
        )
    if c.yarn is not None:
        y = c.yarn
        if not (1.0 <= y.factor <= 1e4 and 1 <= y.original_max_position_embeddings <= 1 << 24):
            raise ConfigError("config.json: rope_scaling has an impossible factor or length.")
        if not all(math.isfinite(v) and v >= 0 for v in (y.beta_fast, y.beta_slow, y.mscale)):
            raise ConfigError("config.json: rope_scaling holds a negative or non-finite number.")
    if count_parameters(c) > _MAX_PARAMETERS:
        raise ConfigError("config.json: these sizes make a model of over 4 trillion parameters.")


def count_parameters(c: DeepseekV3Config) -> int:
    """Number of weights of the main model, MTP modules left out."""
    d, heads = c.hidden_size, c.num_attention_heads
    query = d * heads * c.qk_head_dim
    if c.q_lora_rank is not None:
        query = c.q_lora_rank * (d + 1 + heads * c.qk_head_dim)
    attention = query + d * c.cache_width + c.kv_lora_rank
    attention += heads * (c.qk_nope_head_dim + c.v_head_dim) * c.kv_lora_rank
    attention += heads * c.v_head_dim * d
    experts = (c.n_routed_experts + c.n_shared_experts) * 3 * d * c.moe_intermediate_size
    moe = experts + c.n_routed_experts * (d + 1)
    dense_layers = min(c.first_k_dense_replace, c.num_hidden_layers)
    layers = c.num_hidden_layers * (attention + 2 * d)
    layers += dense_layers * 3 * d * c.intermediate_size
    layers += (c.num_hidden_layers - dense_layers) * moe
    head = 0 if c.tie_word_embeddings else c.vocab_size * d
    return layers + c.vocab_size * d + head + d


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON object from a model folder; damage becomes a ConfigError."""
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ConfigError(f"{path.name} is larger than 4 MB; this is no model configuration.")
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(
            f"{path.parent} holds no {path.name}; point to a folder in Hugging Face layout."
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name} is not valid JSON ({error}).") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path.name} must hold a JSON object.")
    return value


def read_config(folder: Path) -> DeepseekV3Config:
    """Read `folder/config.json`.

    Raises ModelNotFoundError without the file, ConfigError for another model type, a missing or
    mistyped key, impossible sizes, or a feature this family does not have.
    """
    raw = read_json(folder / "config.json")
    kind = raw.get("model_type")
    if kind != "deepseek_v3":
        raise ConfigError(f"config.json: model_type {kind!r} is not supported; need 'deepseek_v3'.")
    for key, only in _FIXED.items():
        if raw.get(key, only) != only:
            raise ConfigError(f"config.json: {key} {raw[key]!r} is not supported, only {only!r}.")
    values: dict[str, Any] = {}
    for name, annotation in DeepseekV3Config.__annotations__.items():
        if name in raw and name != "yarn":
            values[name] = _typed(name, raw[name], annotation)
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ConfigError("config.json: rope_scaling must be an object.")
    if "rope_theta" in rope:
        values["rope_theta"] = _typed("rope_theta", rope["rope_theta"], "float")
    values["yarn"] = _read_yarn(rope)
    missing = [n for n in _REQUIRED if n not in values]
    if missing:
        raise ConfigError(f"config.json lacks {', '.join(missing)}.")
    return DeepseekV3Config(**values)


_REQUIRED = [  # the fields without a default
    name for name in DeepseekV3Config.__annotations__ if not hasattr(DeepseekV3Config, name)
]
_FIXED = {
    "hidden_act": "silu",
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "attention_bias": False,
}


def _read_yarn(rope: dict[str, Any]) -> Yarn | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "yarn":
        raise ConfigError(f"config.json: rope scaling {kind!r} is not supported, only 'yarn'.")
    values = {
        name: _typed(f"rope_scaling.{name}", rope[name], annotation)
        for name, annotation in Yarn.__annotations__.items()
        if rope.get(name) is not None
    }
    for needed in ("factor", "original_max_position_embeddings"):
        if needed not in values:
            raise ConfigError(f"config.json: rope_scaling lacks {needed}.")
    return Yarn(**values)


def _typed(name: str, value: Any, annotation: str) -> Any:
    """Check a JSON value against an annotation of the dataclass; bool is never a number."""
    if value is None and "None" in annotation:
        return None
    if "tuple" in annotation and isinstance(value, list) and all(_is_int(v) for v in value):
        return tuple(value)
    if annotation == "bool" and isinstance(value, bool):
        return value
    if annotation == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if annotation.startswith("int"):
        if _is_int(value):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
    raise ConfigError(f"config.json: {name} is {value!r}, expected {annotation}.")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
