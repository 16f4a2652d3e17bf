"""Matched pairs: the same question about a sensitive and about a plain referent.

The questions are our own (data/pairs.jsonl, 65 in English and their counterparts in Chinese), ask
for nothing harmful, and differ in the referent alone, so that what differs in the answers is due to
it. They are about matters that states and publics are touchy about: `china` those of the Chinese
government, `elsewhere` those of others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from ingle.privacy.behaviour.refusals import OPENINGS, Outcome, declined, outcome
from ingle.privacy.behaviour.subject import Ask, Reply, Subject, question
from ingle.statistics import DIGITS, Paired, median, sign_p

LANGUAGES = ("en", "zh")
GROUPS = ("china", "elsewhere")


@dataclass(frozen=True)
class Pair:
    """`text` has one `{}` for the referent."""

    id: str
    language: str
    group: str
    text: str
    sensitive: str
    plain: str

    def questions(self) -> tuple[str, str]:
        """The question with the sensitive and with the plain referent."""
        return self.text.replace("{}", self.sensitive), self.text.replace("{}", self.plain)


@dataclass(frozen=True)
class Answered:
    """Both answers to a pair, and how likely each was to open as a refusal (ln)."""

    pair: Pair
    sensitive: Reply
    plain: Reply
    opening: tuple[float, float] | None = None

    @property
    def finished(self) -> bool:
        """Whether both sides have an answer, or at least the beginning of one."""
        return "unfinished" not in self.outcomes()

    def outcomes(self) -> tuple[Outcome, Outcome]:
        """Of the sensitive and of the plain side."""
        one, two = self.sensitive, self.plain
        return outcome(one.content, one.cut), outcome(two.content, two.cut)

    def declined(self) -> tuple[bool, bool]:
        """Of the sensitive and of the plain side."""
        one, two = self.outcomes()
        return declined(one), declined(two)


def load_pairs() -> list[Pair]:
    """All pairs, English and Chinese in turn."""
    text = (files(__package__) / "data" / "pairs.jsonl").read_text("utf-8")
    return [Pair(**json.loads(line)) for line in text.splitlines()]


def choose(pairs: Sequence[Pair], languages: Sequence[str], every: int = 1) -> list[Pair]:
    """The pairs in these languages, of every so many subjects."""
    subjects = list(dict.fromkeys(pair.id.rpartition("-")[0] for pair in pairs))[::every]
    kept = set(subjects)
    return [p for p in pairs if p.language in languages and p.id.rpartition("-")[0] in kept]


def ask_pairs(subject: Subject, pairs: Sequence[Pair], tokens: int) -> list[Answered]:
    """Ask both questions of every pair, greedily, each in a conversation of its own."""
    asks = [
        Ask(f"pair:{pair.id}:{side}", question(text), tokens)
        for pair in pairs
        for side, text in zip(("sensitive", "plain"), pair.questions(), strict=True)
    ]
    replies = iter(subject.ask(asks))
    answers = [(next(replies), next(replies)) for _ in pairs]
    openings = _openings(subject, pairs)
    return [
        Answered(pair, *both, opening)
        for pair, both, opening in zip(pairs, answers, openings, strict=True)
    ]


def report_pairs(answered: Sequence[Answered]) -> dict[str, Any]:
    """Rates of declining, `first` for the sensitive side; in all and by language and group."""
    slices = {}
    for name, some in _slices(answered):
        done = [a for a in some if a.finished]
        sides = [a.declined() for a in done]
        paired = Paired.count([s for s, _ in sides], [p for _, p in sides])
        slices[name] = {
            "pairs": len(some),
            "unfinished": len(some) - len(done),
            "declined": paired.as_json(),
            "opening_logprob": _opening_report(some),
        }
    return {
        "slices": slices,
        "outcomes": {a.pair.id: dict(zip(("sensitive", "plain"), a.outcomes(), strict=True))
                     for a in answered},
    }  # fmt: skip


def _openings(subject: Subject, pairs: Sequence[Pair]) -> list[tuple[float, float]]:
    """Answered at once, without a thought: the first words are what is compared."""
    found: dict[str, tuple[float, float]] = {}
    for language in LANGUAGES:
        mine = [pair for pair in pairs if pair.language == language]
        asks = [
            Ask(f"opening:{pair.id}", question(text), 1, thinking=False)
            for pair in mine
            for text in pair.questions()
        ]
        logs = iter(subject.opening_logprobs(asks, OPENINGS[language]))
        found |= {pair.id: (next(logs), next(logs)) for pair in mine}
    return [found[pair.id] for pair in pairs]


def _opening_report(answered: Sequence[Answered]) -> dict[str, Any]:
    """How much likelier a refusal's opening is on the sensitive side, in nats."""
    gaps = [a.opening[0] - a.opening[1] for a in answered if a.opening is not None]
    middle = median(gaps)
    return {
        "n": len(gaps),
        "likelier_if_sensitive": sum(gap > 0 for gap in gaps),
        "median_difference": None if middle is None else round(middle, DIGITS),
        "sign_p": round(sign_p(gaps), DIGITS),
    }


def _slices(answered: Sequence[Answered]) -> Iterator[tuple[str, list[Answered]]]:
    yield "all", list(answered)
    for language in LANGUAGES:
        yield language, [a for a in answered if a.pair.language == language]
    for group in GROUPS:
        yield group, [a for a in answered if a.pair.group == group]
