"""Two sides measured in turn on a noisy machine: medians over rounds, with intervals."""

from __future__ import annotations

import random
import statistics

DRAWS = 2000


def excess(more: list[float], less: list[float]) -> tuple[float, float, float]:
    """By what share the first exceeds the second: median of the rounds' ratios less 1, and its 95 %
    interval over resampled rounds (bootstrap).

    Both were measured in each round, one right after the other: what slows a whole round down falls
    out of its ratio.
    """
    ratios = [a / b for a, b in zip(more, less, strict=True)]
    rng = random.Random(2)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(DRAWS))
    low, high = medians[DRAWS // 40], medians[-DRAWS // 40 - 1]
    return statistics.median(ratios) - 1, low - 1, high - 1
