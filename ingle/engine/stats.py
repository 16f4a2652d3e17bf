"""What an engine can say about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineStats:
    """A snapshot. Counters run since the engine was made; times are seconds.

    pages_cached: pages that no one uses now, kept for later prompts (not part of pages_used).
    drafted, accepted: per draft position 1..k, how many drafts were verified and how many held.
    step_seconds, step_bytes: moving averages over recent steps: how long they took, and how much
    they had to read from memory (engine/traffic.py).
    """

    running: int
    waiting: int
    pages_total: int
    pages_used: int
    pages_cached: int
    bytes_per_token: int
    mtp_bytes_per_token: int
    steps: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    preemptions: int
    drafted: tuple[int, ...]
    accepted: tuple[int, ...]
    step_seconds: float
    step_bytes: float = 0.0

    @property
    def acceptance(self) -> tuple[float, ...]:
        """Share of verified drafts that held, per draft position (0 where none was verified)."""
        pairs = zip(self.accepted, self.drafted, strict=True)
        return tuple(held / seen if seen else 0.0 for held, seen in pairs)
