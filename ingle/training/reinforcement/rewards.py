"""What a rollout is worth: the verifier's verdict, a well-formed reply, no more words than needed.

Each part is logged by itself. Nothing but the verdict can make a wrong answer look right: the parts
for form are small beside it, and a format reward larger than the spread of verdicts is refused.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from ingle.errors import ConfigError, IngleError
from ingle.tasks import Problem, Verdict, verify

Verifier = Callable[[Problem, str], Verdict]


@dataclass(frozen=True)
class RewardWeights:
    """accuracy: of the verdict's score. form: added for a thought, its end, and an answer after it.
    length: taken away at the length limit, less before it (see `length_share`). language: of the
    share of letters of the reply that are of the Latin alphabet. seconds: that a verifier may take.
    """

    accuracy: float = 1.0
    form: float = 0.1
    length: float = 0.5
    language: float = 0.0
    seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.form + self.language >= self.accuracy:
            raise ConfigError(
                "Rewards for form and language must stay below that for accuracy: otherwise a "
                "well-formed wrong answer is worth as much as a right one."
            )


@dataclass(frozen=True)
class Reward:
    """The weighted parts; reason: the verifier's sentence."""

    accuracy: float
    form: float
    length: float
    language: float
    reason: str

    @property
    def total(self) -> float:
        return self.accuracy + self.form + self.length + self.language

    def parts(self) -> dict[str, float]:
        return {
            "accuracy": self.accuracy, "form": self.form, "length": self.length,
            "language": self.language,
        }  # fmt: skip


def reward(
    weights: RewardWeights, problem: Problem, reasoning: str, answer: str | None, tokens: int,
    limit: int, overlong: float, verifier: Verifier = verify,
) -> Reward:  # fmt: skip
    """Judge one reply. answer: the text after the thought, None if the thought never ended.

    Raises IngleError for a verifier that returns no number, fails, or takes too long: training on
    what it would say is training on noise.
    """
    verdict = Verdict(0.0, "The thought did not end.")
    if answer is not None:
        verdict = judge(problem, answer, weights.seconds, verifier)
    formed = answer is not None and bool(answer.strip()) and "<think>" not in reasoning
    text = reasoning + (answer or "")
    return Reward(
        accuracy=weights.accuracy * verdict.score,
        form=weights.form * formed,
        length=-weights.length * length_share(tokens, limit, overlong),
        language=weights.language * latin_share(text),
        reason=verdict.reason,
    )


def judge(problem: Problem, answer: str, seconds: float, verifier: Verifier) -> Verdict:
    """The verdict; IngleError names the task for one that is none."""
    try:
        with time_limit(seconds):
            verdict = verifier(problem, answer)
    except TimeoutError:
        raise IngleError(
            f"The verifier of {problem.task!r} took more than {seconds:g} s on one answer and was "
            "stopped. Bound its work, or raise RewardWeights.seconds."
        ) from None
    except Exception as error:
        raise IngleError(f"The verifier of {problem.task!r} failed: {error!r}.") from error
    if not isinstance(verdict.score, int | float) or not math.isfinite(verdict.score):
        raise IngleError(
            f"The verifier of {problem.task!r} returned {verdict.score!r} as a score; it must be a "
            "finite number."
        )
    return verdict


def length_share(tokens: int, limit: int, overlong: float) -> float:
    """0 up to the last `overlong` share of the limit, then linear to 1 at it (arXiv 2503.14476)."""
    if not overlong:
        return 0.0
    free = (1 - overlong) * limit
    return min(1.0, max(0.0, (tokens - free) / (limit - free)))


def latin_share(text: str) -> float:
    """Share of the letters that are of the Latin alphabet; 1 for a text without any."""
    letters = [c for c in text if c.isalpha()]
    return sum(c < "\u0250" for c in letters) / len(letters) if letters else 1.0


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """TimeoutError in the block after so many seconds. Only the main thread can be interrupted; in
    another the block runs without a limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_: int, __: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
