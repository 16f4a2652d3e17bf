"""pass@k and maj@k of problems that were answered several times.

pass@k: the chance that at least one of k answers is right, by the unbiased estimator of Chen et al.
(arXiv 2107.03374, section 2.1). maj@k: the chance that the answer given most often among k is right
(Wang et al., arXiv 2203.11171, without weights), over blocks of k answers that share none, which is
unbiased, too. Intervals: `ingle.statistics.mean_of_shares`, problems being the independent unit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from ingle.statistics import Estimate, mean_of_shares


def numbers_of_tries(samples: int) -> tuple[int, ...]:
    """The k that are reported: powers of two up to the number of samples."""
    return tuple(1 << i for i in range(samples.bit_length()))


def pass_at_k(samples: int, right: int, k: int) -> float:
    """1 - C(samples - right, k) / C(samples, k): k of the samples, drawn without replacement, are
    not all wrong. Needs 1 <= k <= samples and 0 <= right <= samples."""
    if not (1 <= k <= samples and 0 <= right <= samples):
        raise ValueError(f"pass@{k} is not defined for {right} right answers of {samples}.")
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def majority(votes: Sequence[str | None]) -> int | None:
    """Index of the first vote for the winner; None where there is no vote.

    None is an answer that says nothing, which has no vote. Among equals the one that was given
    first wins: that is deterministic, and as samples are drawn alike it favours no answer.
    """
    counts = Counter(vote for vote in votes if vote is not None)
    if not counts:
        return None
    return votes.index(max(counts, key=counts.__getitem__))  # max takes the first of the largest


def maj_at_k(votes: Sequence[str | None], right: Sequence[bool], k: int) -> float:
    """Share of right winners among the blocks of k samples one after the other; samples beyond the
    last whole block are left out."""
    blocks = len(votes) // k
    won = 0
    for start in range(0, blocks * k, k):
        winner = majority(votes[start : start + k])
        won += winner is not None and right[start + winner]
    return won / blocks


def mean_pass(outcomes: Sequence[tuple[int, int]], k: int) -> Estimate:
    """pass@k over problems, each given as (samples, right)."""
    shares = [pass_at_k(samples, right, k) for samples, right in outcomes]
    return mean_of_shares(shares, _blocks([samples for samples, _ in outcomes], k))


def mean_majority(
    votes: Sequence[Sequence[str | None]], right: Sequence[Sequence[bool]], k: int
) -> Estimate:
    """maj@k over problems, each with its samples' votes and whether they are right."""
    shares = [maj_at_k(v, r, k) for v, r in zip(votes, right, strict=True)]
    return mean_of_shares(shares, _blocks([len(v) for v in votes], k))


def _blocks(samples: Sequence[int], k: int) -> int:
    """How many separate tries of k each problem had, at least: pass@k never counts as more."""
    return min(samples, default=k) // k
