"""How an engine is set up."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ingle.engine.speculative import Mode
from ingle.errors import ConfigError
from ingle.models.batch import PAGE_TOKENS


@dataclass(frozen=True)
class EngineConfig:
    """Limits and choices of one engine; everything else follows from the model.

    max_sequences: requests computed at the same time; max_waiting: how many more may queue.
    token_budget: most tokens per step, decoded and prefilled together.
    context: most tokens of prompt and output; None takes the model's. A cache too small for it
        lowers it.
    cache_bytes: ceiling of the latent cache; less is taken when max_sequences whole contexts need
        less. `pages` overrides it.
    speculative: "auto" drafts with the MTP module while the clock says that it pays; tokens are
        the same in all modes. draft_length: drafts per sequence and step, 1 to 4.
    share_tails: a new sequence also takes over what a running one has of its last, incomplete page:
        for many continuations of one prompt. Usage then counts it as cached.
    record_routes: keep which experts every token chose, beside its latents, and report it with a
        request's last event. For training.
    eos_ids: end-of-sequence ids; None takes the tokenizer's and the model's.
    fingerprint: identifies the weights in the names of cached pages.
    """

    max_sequences: int = 32
    max_waiting: int = 256
    token_budget: int = 512
    context: int | None = None
    cache_bytes: int = 1 << 30
    pages: int | None = None
    cache_dtype: torch.dtype | None = None
    prefix_cache: bool = True
    speculative: Mode = "auto"
    draft_length: int = 1
    share_tails: bool = False
    record_routes: bool = False
    eos_ids: tuple[int, ...] | None = None
    fingerprint: bytes = b""

    def __post_init__(self) -> None:
        _at_least("max_sequences", self.max_sequences, 1)
        _at_least("max_waiting", self.max_waiting, 0)
        _at_least("token_budget", self.token_budget, self.max_sequences)
        if self.context is not None:
            _at_least("context", self.context, 2)
        if self.pages is not None:
            _at_least("pages", self.pages, 1)
        if self.speculative not in ("auto", "on", "off"):
            raise ConfigError('speculative must be "auto", "on" or "off".')
        if not 1 <= self.draft_length <= 4:
            raise ConfigError("draft_length must lie in [1, 4].")

    def choose_pages(self, context: int, bytes_per_page: int) -> int:
        """Pages of the cache for a context length; 0 if not one fits into cache_bytes."""
        if self.pages is not None:
            return self.pages
        wanted = self.max_sequences * -(-context // PAGE_TOKENS)
        return min(wanted, self.cache_bytes // bytes_per_page)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} must be at least {least}, got {value}.")
