"""What decides a run of reinforcement learning, and what one of its steps learns from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from ingle.engine.request import SamplingParams
from ingle.errors import ConfigError
from ingle.kernels.quantized import Kind
from ingle.models.config import ModelConfig, WithExperts
from ingle.parallel.layout import Precision
from ingle.tasks import Problem
from ingle.training.data import Mixture
from ingle.training.optim import OptimConfig, rate_factor
from ingle.training.reinforcement.objectives import Objective
from ingle.training.reinforcement.policy import Policy
from ingle.training.reinforcement.rewards import Reward, RewardWeights
from ingle.training.reinforcement.rollout import Completion, Reply


@dataclass(frozen=True)
class GrpoRun:
    """Everything that decides a run; the same one gives the same weights on one machine.

    parent: the folder it starts from. mixture: which questions are asked. prompts, group: P and G
    of a step. limit: most tokens of a reply, longest: of a prompt. raw: questions are asked as the
    plain text that a base has read, without a chat's tokens (R1-Zero). updates: optimiser steps a
    batch of rollouts is cut into. refills: how often prompts are drawn anew for groups that teach
    nothing, where the objective asks for it. reset: steps after which the reference becomes the
    model of the time, 0 for never. bias_speed: of the routers' biases, 0 leaves them frozen.
    micro_tokens: of a packed batch. quant: "int8", "int4" or "fp8" for rollouts from a copy of the
    model, rounded to it anew before each; "" for rollouts from the model itself. keep: the best
    checkpoint, by the moving average of accuracy, is kept beside the last from this step on.
    precision: of training's products (parallel/choice.py: lay_out).
    """

    name: str
    model: ModelConfig
    parent: Path
    mixture: Mixture
    steps: int
    objective: Objective
    rewards: RewardWeights = field(default_factory=RewardWeights)
    prompts: int = 16
    group: int = 8
    limit: int = 256
    longest: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    raw: bool = False
    updates: int = 1
    refills: int = 3
    reset: int = 0
    micro_tokens: int = 4096
    streams: int = 2
    quant: Kind | Literal[""] = ""
    seed: int = 0
    warmup: int = 5
    decay: float = 0.0
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(muon=False, adam_lr=2e-5))
    clip: float = 1.0
    bias_speed: float = 0.0
    keep: int = 20
    save_every: int = 20
    samples_every: int = 10
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.group < 2:
            raise ConfigError("group must be at least 2: advantages compare rollouts of a prompt.")
        if self.quant and self.quant not in get_args(Kind):
            raise ConfigError(f'quant must be one of {", ".join(get_args(Kind))}, or "" for none.')
        if self.reset % self.save_every:
            raise ConfigError(
                "reset must be a multiple of save_every: a reference is a checkpoint."
            )

    def learning_rate(self, step: int) -> float:
        """Factor on the peak rates at a step."""
        return rate_factor(step, self.steps, self.warmup, self.decay)

    @property
    def routes(self) -> tuple[int, int] | None:
        """Mixture layers and experts chosen, where training takes over the sampler's routing: where
        the objective asks for it, and wherever the sampler's weights are not the trainer's."""
        kept = self.quant or self.objective.keep_routing
        return self.model.routes_shape if kept and isinstance(self.model, WithExperts) else None

    def algorithm(self) -> Policy:
        return Policy(self.objective, self.temperature, self.model.vocab_size, self.routes)

    def sampling(self) -> SamplingParams:
        return SamplingParams(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k)


@dataclass(frozen=True)
class Group:
    """One question with its rollouts, each with its reply, reward and advantage."""

    problem: Problem
    prompt: list[int]
    completions: list[Completion]
    replies: list[Reply]
    rewards: list[Reward]
    advantages: list[float]
    teaches: bool
