"""Does a model fit and how fast can it be, worked out from its config before anything is loaded."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ingle.engine.storage import BITS, expert_bytes, weight_bytes
from ingle.models.config import ModelConfig, WithExperts, WithMLA

KINDS = ("int4", "int8", "fp8", "bf16", "fp32")
_CACHE_ITEM = 2  # bytes of a cached value in bf16
_RESERVE = 0.92  # share of the free memory to plan with: scratch and the rest of the machine


@dataclass(frozen=True)
class Fit:
    """One way to keep a model: bytes of weights, the longest context beside them (0: does not
    fit), and the most tokens a second that the memory's speed allows one request."""

    kind: str
    weights: int
    context: int
    tokens_per_second: float


def parts(config: ModelConfig) -> dict[str, int]:
    """Weights of each part of the model."""
    layers = range(config.num_hidden_layers)
    tables = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    found = {
        "embedding and head": tables,
        "attention": config.num_hidden_layers * config.attention_parameters(),
    }
    feeds = [config.feed_forward_parameters(i) for i in layers]
    dense = config.first_k_dense_replace if isinstance(config, WithExperts) else len(feeds)
    found["feed-forward"] = sum(feeds[:dense])
    if isinstance(config, WithExperts):
        found["experts"] = sum(feeds[dense:])
    found["norms"] = config.count_parameters() - sum(found.values())
    if config.mtp_layers:
        found["multi-token prediction"] = config.mtp_layers * (
            config.attention_parameters()
            + config.feed_forward_parameters(config.num_hidden_layers)
            + 2 * config.hidden_size**2
            + 6 * config.hidden_size
        )
    return {name: count for name, count in found.items() if count}


def cache_bytes(config: ModelConfig) -> int:
    """Bytes of latents, or keys and values, of one token in bf16."""
    return config.num_hidden_layers * config.cache_width * _CACHE_ITEM


def fits(config: ModelConfig, memory: int, bandwidth: float) -> list[Fit]:
    """All ways to keep the model, in `memory` bytes read at `bandwidth` bytes a second."""
    found = []
    extra = parts(config).get("multi-token prediction", 0)
    for kind in KINDS:
        weights = weight_bytes(config, kind) + int(extra * BITS[kind] / 8)
        room = memory * _RESERVE - weights
        context = max(0, min(config.max_position_embeddings, int(room // cache_bytes(config))))
        read = config.count_parameters(active=True) * BITS[kind] / 8
        found.append(Fit(kind, weights, context, bandwidth / read))
    return found


@dataclass(frozen=True)
class DiskFit:
    """A mixture with its experts on disk: bytes that must be in memory, bytes of experts, the
    share of these that the rest of the memory holds, and bytes that a token reads if it chooses
    evenly."""

    kind: str
    rest: int
    experts: int
    share: float
    read_per_token: int


def disk_fit(config: ModelConfig, memory: int, kind: str = "int4") -> DiskFit | None:
    """How a mixture larger than the memory runs; None for a model that cannot."""
    if not isinstance(config, WithExperts):
        return None
    experts = expert_bytes(config, kind)
    rest = weight_bytes(config, kind) - experts
    room = int(memory * _RESERVE) - rest
    if room <= 0:
        return None
    share = min(1.0, room / experts)
    chosen = config.num_experts_per_tok / config.n_routed_experts
    return DiskFit(kind, rest, experts, share, int(experts * chosen * (1 - share)))


def measure_bandwidth(megabytes: int = 256) -> float:
    """Bytes a second that all threads together read from memory: the median of a few passes."""
    from ingle.kernels import cpu

    data = torch.ones(megabytes << 18)
    sink = torch.zeros(2 + 64)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        if not cpu.probe_read(data, sink):
            data.sum()
        times.append(time.perf_counter() - started)
    return data.nbytes / sorted(times)[2]


def lineage(config: ModelConfig, name: str) -> str:
    """In words what kind of model this is, for people who heard that "R1 runs on a laptop"."""
    billions = config.count_parameters() / 1e9
    if isinstance(config, WithMLA):
        kind = "DeepSeek's own architecture: latent attention"
        if isinstance(config, WithExperts):
            used = config.count_parameters(active=True) / 1e9
            kind += f" and a mixture of experts, of which a token uses {_short(used)}"
        return f"{_short(billions)} parameters. {kind}."
    if config.model_type == "deepseek":
        return f"{_short(billions)} parameters. DeepSeek's first mixture of experts."
    if "distill" in name.lower() or config.model_type in ("qwen2", "qwen3"):
        base = {"qwen2": "Qwen 2.5", "qwen3": "Qwen 3", "llama": "Llama 3"}[config.model_type]
        return (
            f"{_short(billions)} parameters. A distill: {base} taught with R1's answers. It is not "
            "R1 itself, which has 671 billion."
        )
    return f"{_short(billions)} parameters. A dense model of the {config.model_type} architecture."


def _short(billions: float) -> str:
    return f"{billions:.3g} billion" if billions >= 1 else f"{billions * 1000:.3g} million"
