"""What a model's `config.json` says, typed and bounded.

A family's config is a dataclass put together from parts: `ModelConfig` for all, `WithMLA` or
`WithGQA` for the attention, `WithExperts` where feed-forwards are mixtures. Names are the keys of
the file. Numbers are checked before anything is allocated: a hostile or damaged config ends in a
`ConfigError` that names the key, never in a crash or an attempt to allocate terabytes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

from ingle.errors import ConfigError


@dataclass(frozen=True)
class Yarn:
    """YaRN context extension (arXiv 2309.00071); keys as in DeepSeek's `rope_scaling`."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0
    kind: ClassVar[str] = "yarn"


@dataclass(frozen=True)
class LinearScaling:
    """Position interpolation (arXiv 2306.15595): every angle divided by `factor`."""

    factor: float
    kind: ClassVar[str] = "linear"


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's: long wavelengths slowed by `factor`, short ones kept, a ramp between."""

    factor: float
    original_max_position_embeddings: int
    low_freq_factor: float
    high_freq_factor: float
    kind: ClassVar[str] = "llama3"


RopeScaling = Yarn | LinearScaling | Llama3Scaling

# key: (smallest, largest) accepted. The ceilings are far above any released model, far below harm.
_BOUNDS: dict[str, tuple[float, float]] = {
    "vocab_size": (2, 1 << 21),
    "hidden_size": (1, 1 << 16),
    "intermediate_size": (1, 1 << 18),
    "moe_intermediate_size": (1, 1 << 16),
    "num_hidden_layers": (1, 512),
    "num_attention_heads": (1, 1024),
    "num_key_value_heads": (1, 1024),
    "head_dim": (2, 4096),
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


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What every family has."""

    model_type: ClassVar[str]
    architecture: ClassVar[str]
    # keys that must have one value if they are there: features no release of the family uses
    fixed: ClassVar[dict[str, Any]] = {"hidden_act": "silu", "attention_bias": False}

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        self.check()

    @classmethod
    def normalise(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """The parsed file in the terms of the fields, for families with a dialect of their own."""
        return raw

    @property
    def eos_ids(self) -> tuple[int, ...]:
        eos = self.eos_token_id
        return () if eos is None else (eos,) if isinstance(eos, int) else eos

    @property
    def mtp_layers(self) -> int:
        """Multi-token prediction modules after the layers."""
        return 0

    # What the attention and feed-forward parts answer.

    @property
    def cache_width(self) -> int:
        """Values cached per token and layer."""
        raise NotImplementedError

    @property
    def rope_dim(self) -> int:
        """Rotated values of a head."""
        raise NotImplementedError

    @property
    def half_split_rope(self) -> bool:
        """Whether pairs are (x[i], x[i + R/2]) instead of neighbours."""
        raise NotImplementedError

    def attention_parameters(self) -> int:
        """Weights of one layer's attention."""
        raise NotImplementedError

    def feed_forward_parameters(self, layer: int, active: bool = False) -> int:
        """Weights of one layer's feed-forward; `active`: those one token uses."""
        return 3 * self.hidden_size * self.intermediate_size

    def count_parameters(self, active: bool = False) -> int:
        """Weights of the main model, MTP modules left out; `active`: those one token uses."""
        d = self.hidden_size
        total = self.num_hidden_layers * (self.attention_parameters() + 2 * d) + d
        total += sum(self.feed_forward_parameters(i, active) for i in range(self.num_hidden_layers))
        tables = 1 if self.tie_word_embeddings or active else 2
        return total + tables * self.vocab_size * d

    def check(self) -> None:
        """Raise ConfigError for a number out of bounds or numbers that contradict each other."""
        for key, (low, high) in _BOUNDS.items():
            value = getattr(self, key, None)
            if value is not None and not low <= value <= high:  # NaN fails too
                raise ConfigError(f"config.json: {key} is {value}, expected {low:g} to {high:g}.")
        if self.rope_dim % 2:
            raise ConfigError(
                f"config.json: the rotary width (qk_rope_head_dim or head_dim) is {self.rope_dim}, "
                "must be even."
            )
        if self.rope_scaling is not None:
            _check_scaling(self.rope_scaling)
        if self.count_parameters() > _MAX_PARAMETERS:
            raise ConfigError(
                "config.json: these sizes make a model of over 4 trillion parameters."
            )

    def to_json(self) -> dict[str, Any]:
        """The `config.json` of this model, readable by other engines."""
        out = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "rope_scaling"}
        if (scaling := self.rope_scaling) is not None:
            out["rope_scaling"] = {
                "type": scaling.kind, "rope_type": scaling.kind, **asdict(scaling)
            }  # fmt: skip
        return (
            out
            | self.fixed
            | {
                "architectures": [self.architecture],
                "model_type": self.model_type,
                "attention_dropout": 0.0,
            }
        )


@dataclass(frozen=True, kw_only=True)
class WithMLA(ModelConfig):
    """Multi-head latent attention (arXiv 2405.04434, section 2.1)."""

    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    q_lora_rank: int | None = None

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def cache_width(self) -> int:
        """Values cached per token and layer: the latent and the one shared rotary key."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def rope_dim(self) -> int:
        return self.qk_rope_head_dim

    @property
    def half_split_rope(self) -> bool:
        return False

    def attention_parameters(self) -> int:
        d, heads = self.hidden_size, self.num_attention_heads
        query = d * heads * self.qk_head_dim
        if self.q_lora_rank is not None:
            query = self.q_lora_rank * (d + 1 + heads * self.qk_head_dim)
        expand = heads * (self.qk_nope_head_dim + self.v_head_dim) * self.kv_lora_rank
        latent = d * self.cache_width + self.kv_lora_rank
        return query + latent + expand + heads * self.v_head_dim * d

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {
            "num_key_value_heads": self.num_attention_heads,
            "head_dim": self.qk_rope_head_dim,  # transformers sizes its rotary table by it
        }


@dataclass(frozen=True, kw_only=True)
class WithGQA(ModelConfig):
    """Grouped-query attention (arXiv 2305.13245); as many key heads as heads is plain MHA."""

    qkv_bias: ClassVar[bool] = False
    qk_norm: ClassVar[bool] = False

    num_key_value_heads: int = 0  # 0, as a missing key: as many as heads
    head_dim: int = 0  # 0, as a missing key: hidden_size / num_attention_heads

    def __post_init__(self) -> None:
        heads = self.num_attention_heads
        if not self.num_key_value_heads:
            object.__setattr__(self, "num_key_value_heads", heads)
        if not self.head_dim and heads > 0:
            if self.hidden_size % heads:
                raise ConfigError(
                    f"config.json: num_attention_heads {heads} does not divide hidden_size "
                    f"{self.hidden_size}."
                )
            object.__setattr__(self, "head_dim", self.hidden_size // heads)
        super().__post_init__()

    @property
    def cache_width(self) -> int:
        """Values cached per token and layer: all keys, then all values."""
        return 2 * self.num_key_value_heads * self.head_dim

    @property
    def rope_dim(self) -> int:
        return self.head_dim

    @property
    def half_split_rope(self) -> bool:
        return True

    def attention_parameters(self) -> int:
        query, key = (
            n * self.head_dim for n in (self.num_attention_heads, self.num_key_value_heads)
        )
        extra = (query + 2 * key) * self.qkv_bias + 2 * self.head_dim * self.qk_norm
        return 2 * self.hidden_size * (query + key) + extra

    def check(self) -> None:
        super().check()
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"config.json: num_key_value_heads {self.num_key_value_heads} does not divide "
                f"num_attention_heads {self.num_attention_heads}."
            )


@dataclass(frozen=True, kw_only=True)
class WithExperts(ModelConfig):
    """DeepSeekMoE (arXiv 2401.06066): routed experts beside shared ones above the first layers."""

    scoring: ClassVar[Literal["sigmoid", "softmax"]] = "softmax"
    router_bias: ClassVar[bool] = False

    moe_intermediate_size: int
    n_routed_experts: int
    num_experts_per_tok: int
    n_shared_experts: int = 1
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = False
    routed_scaling_factor: float = 1.0
    first_k_dense_replace: int = 1

    @property
    def routes_shape(self) -> tuple[int, int]:
        """Mixture layers, those of MTP modules not counted, and experts chosen in each."""
        layers = max(0, self.num_hidden_layers - self.first_k_dense_replace)
        return layers, self.num_experts_per_tok

    def feed_forward_parameters(self, layer: int, active: bool = False) -> int:
        if layer < self.first_k_dense_replace:
            return super().feed_forward_parameters(layer)
        routed = self.num_experts_per_tok if active else self.n_routed_experts
        experts = (routed + self.n_shared_experts) * 3 * self.hidden_size
        router = self.n_routed_experts * (self.hidden_size + self.router_bias)
        return experts * self.moe_intermediate_size + router

    def check(self) -> None:
        super().check()
        if self.n_routed_experts % self.n_group:
            raise ConfigError(
                f"config.json: n_group {self.n_group} does not divide n_routed_experts "
                f"{self.n_routed_experts}."
            )
        per_group = self.n_routed_experts // self.n_group
        allowed = self.topk_group * per_group
        if self.topk_group > self.n_group or self.num_experts_per_tok > allowed:
            raise ConfigError(
                f"config.json: num_experts_per_tok {self.num_experts_per_tok} experts cannot be "
                f"chosen from topk_group {self.topk_group} of {self.n_group} groups of {per_group}."
            )


def _check_scaling(scaling: RopeScaling) -> None:
    values = asdict(scaling)
    if not all(math.isfinite(value) and value >= 0 for value in values.values()):
        raise ConfigError("config.json: rope_scaling holds a negative or non-finite number.")
    length = values.get("original_max_position_embeddings", 1)
    if not (1.0 <= scaling.factor <= 1e4 and 1 <= length <= 1 << 24):
        raise ConfigError("config.json: rope_scaling has an impossible factor or length.")
    if isinstance(scaling, Llama3Scaling) and scaling.low_freq_factor >= scaling.high_freq_factor:
        raise ConfigError("config.json: rope_scaling needs low_freq_factor < high_freq_factor.")
