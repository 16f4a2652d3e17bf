"""A scripted model for tests of the behaviour audit: words are tokens, answers are a function."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ingle.privacy.behaviour.subject import Ask, Reply

SENTENCE = "I am a very small reasoner and can only add numbers."


@dataclass
class ScriptedSubject:
    """answer: from a request to its reply. turns: what stands where a user's text would begin."""

    answer: Callable[[Ask], Reply]
    turns: Callable[[random.Random], str] = lambda rng: ""
    opening: Callable[[str], float] = lambda text: -10.0
    refuses: Exception | None = None  # raised where a request has tools
    name: str = "scripted"
    format: str = "deepseek_r1"
    thinks: bool = True
    seed: int = 0
    words: list[str] = field(default_factory=list)
    asked: list[Ask] = field(default_factory=list)

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        if self.refuses is not None and any(ask.tools for ask in asks):
            raise self.refuses
        self.asked += asks
        return [self.answer(ask) for ask in asks]

    def opening_logprobs(self, asks: Sequence[Ask], openings: Sequence[str]) -> list[float]:
        return [self.opening(last(ask)) for ask in asks]

    def user_turns(self, count: int, tokens: int) -> list[list[int]]:
        rng = random.Random(self.seed)
        return [self.ids(self.turns(rng))[:tokens] for _ in range(count)]

    def text(self, ids: Sequence[int]) -> str:
        return " ".join(self.words[index] for index in ids)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text; new words get the next id."""
        for word in text.split():
            if word not in self.words:
                self.words.append(word)
        return [self.words.index(word) for word in text.split()]

    def reply(self, text: str, ask: Ask) -> Reply:
        """A reply whose tokens are its words, cut like a real one."""
        ids = self.ids(text)
        cut = len(ids) > ask.max_tokens
        kept = tuple(ids[: ask.max_tokens])
        first = ((kept[0], -0.01),) if kept else ()
        return Reply(self.text(kept), ids=kept, cut=cut, first=first)


def last(ask: Ask) -> str:
    """The text of the last message."""
    return str(ask.messages[-1]["content"])
