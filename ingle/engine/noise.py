"""Random numbers without a state: a pure function of (seed, position, token id).

A generator's next number depends on how often it was asked, and so on who else is in the batch,
on pre-emption, on drafts. A hash does not. The mixing function is SplitMix64's finaliser
(Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195).

Legend: R rows, V token ids.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio, odd
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def stream_key(seed: int, position: int) -> int:
    """One 64-bit key per (seed, position); the seed counts modulo 2**64."""
    return _mix(_mix((seed + _GOLDEN) & _MASK) + (position + 1) * _GOLDEN)


def random_bits(keys: NDArray[np.uint64], offsets: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Odd 53-bit integers for keys broadcast against `token_offsets` of token ids."""
    z = keys + offsets
    z ^= z >> np.uint64(30)
    z *= np.uint64(_FIRST)
    z ^= z >> np.uint64(27)
    z *= np.uint64(_SECOND)
    z ^= z >> np.uint64(31)
    z >>= np.uint64(11)
    z |= np.uint64(1)  # so that z / 2**53 is exact and neither 0 nor 1
    return z


def exponential(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Standard exponential variates, E = -log(1 - bits / 2**53) > bits / 2**53."""
    times: NDArray[np.float64] = -np.log1p(bits * -(2.0**-53))
    return times


def token_offsets(vocab: int) -> NDArray[np.uint64]:
    """What each token id adds to a key: SplitMix64's own sequence of states."""
    return np.arange(1, vocab + 1, dtype=np.uint64) * np.uint64(_GOLDEN)


def _mix(z: int) -> int:
    z &= _MASK
    z = ((z ^ (z >> 30)) * _FIRST) & _MASK
    z = ((z ^ (z >> 27)) * _SECOND) & _MASK
    return z ^ (z >> 31)
