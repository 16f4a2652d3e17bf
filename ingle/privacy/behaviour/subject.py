"""The audited model as the parts see it: questions in, split replies and log-probabilities out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

from ingle.errors import IngleError

if TYPE_CHECKING:
    from ingle.engine.llm import LLM, Result
    from ingle.engine.request import Request, TokenOut

Message = Mapping[str, Any]
_THOUGHTLESS = ("deepseek_llm", "deepseek_coder", "deepseek_v3")


@dataclass(frozen=True)
class Ask:
    """One request. `key` names it: with the audit's seed it decides every draw.

    top: how many of the likeliest first tokens to report, at most 20.
    """

    key: str
    messages: tuple[Message, ...]
    max_tokens: int
    tools: tuple[Message, ...] = ()
    thinking: bool = True
    temperature: float = 0.0
    top: int = 0


@dataclass(frozen=True)
class Reply:
    """calls: names of the functions that were called. cut: ended by its length. ids: all tokens.
    first: log-probabilities of the likeliest first tokens."""

    content: str
    reasoning: str = ""
    calls: tuple[str, ...] = ()
    cut: bool = False
    ids: tuple[int, ...] = ()
    first: tuple[tuple[int, float], ...] = ()


class Subject(Protocol):
    """What an audit needs of a model; `ModelSubject` is one on disk, tests have scripted ones."""

    name: str
    format: str
    """The prompt format of its generation."""
    thinks: bool
    """Whether the format has thoughts."""

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Answer each; raises InvalidRequestError or ConfigError for what the format lacks."""

    def opening_logprobs(self, asks: Sequence[Ask], openings: Sequence[str]) -> list[float]:
        """For each, ln of the probability that its answer opens with any of these texts."""

    def user_turns(self, count: int, tokens: int) -> list[list[int]]:
        """What the model writes, drawn at temperature 1, where a user's text would begin."""

    def text(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""


def question(text: str) -> tuple[Message, ...]:
    """A conversation of one question."""
    return ({"role": "user", "content": text},)


class ModelSubject:
    """A loaded model. Everything it draws follows from `seed`."""

    def __init__(self, llm: LLM, seed: int) -> None:
        assert llm.tokenizer is not None and llm.folder is not None
        self.llm, self.seed, self.tokenizer = llm, seed, llm.tokenizer
        self.name = llm.folder.resolve().name
        self.format = llm.encoder.name
        self.thinks = self.format not in _THOUGHTLESS and _has_thoughts(llm)

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        from ingle.engine.request import SamplingParams
        from ingle.prompt.parser import reply_parser

        prompts = [self._prompt(ask) for ask in asks]
        params = [
            SamplingParams(
                max_tokens=ask.max_tokens,
                temperature=ask.temperature,
                seed=self._draw(ask.key),
                logprobs=ask.top or None,
            )
            for ask in asks
        ]
        replies = []
        results = self.llm.generate(prompts, params) if prompts else []
        for ask, prompt, result in zip(asks, prompts, results, strict=True):
            parser = reply_parser(self.format, self.tokenizer, prompt, calls=bool(ask.tools))
            replies.append(_reply(result, parser, self.tokenizer))
        return replies

    def opening_logprobs(self, asks: Sequence[Ask], openings: Sequence[str]) -> list[float]:
        from ingle.engine.request import Request, SamplingParams

        scored = SamplingParams(max_tokens=0, prompt_logprobs=0)
        labels = [self.tokenizer.encode(text) for text in openings]
        found = []
        for ask in asks:
            prompt, logs = self._prompt(ask), []
            for label in labels:
                scores = self._scores(Request("opening", [*prompt, *label], scored))
                logs.append(sum(token.logprob or 0.0 for token in scores[-len(label) :]))
            found.append(_log_sum(logs))
        return found

    def user_turns(self, count: int, tokens: int) -> list[list[int]]:
        from ingle.engine.request import SamplingParams

        starts = self._bare_starts()
        prompts = [starts[i % len(starts)] for i in range(count)]
        params = [
            SamplingParams(max_tokens=tokens, temperature=1.0, seed=self._draw(f"turn:{i}"))
            for i in range(count)
        ]
        return [
            _between_specials(result.token_ids, self.tokenizer.is_special)
            for result in self.llm.generate(prompts, params)
        ]

    def text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def _prompt(self, ask: Ask) -> list[int]:
        return self.llm.encoder.encode(
            ask.messages, self.tokenizer, tools=ask.tools or None, thinking=ask.thinking
        )

    def _bare_starts(self) -> list[list[int]]:
        """The tokens before a user's text in this format, and those that begin any text.

        A model that was fine-tuned on whole chats remembers what users wrote in them at the first,
        one that was pre-trained on plain text at the second.
        """
        one, two = (
            self.llm.encoder.encode(question(text), self.tokenizer) for text in ("a b", "1 2")
        )
        same = next(i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
        starts = [one[:same], [self.tokenizer.bos_id]]
        return starts if starts[0] != starts[1] else starts[:1]

    def _scores(self, request: Request) -> tuple[TokenOut, ...]:
        engine = self.llm.engine
        engine.check(request)
        engine.submit(request)
        scores: tuple[TokenOut, ...] = ()
        while engine.has_work:
            for event in engine.step():
                if event.finish_reason == "error":
                    raise IngleError(event.error or "The model failed on this request.")
                scores = event.prompt_logprobs or scores
        return scores

    def _draw(self, key: str) -> int:
        digest = sha256(f"{self.seed}:{key}".encode()).digest()
        return int.from_bytes(digest[:7], "big")


def _reply(result: Result, parser: Any, tokenizer: Any) -> Reply:
    from ingle.prompt.detokenize import Detokenizer

    detokenizer = Detokenizer(tokenizer)
    deltas = []
    for index in result.token_ids:
        deltas += parser.push(index, detokenizer.push(index))
    deltas += parser.finish()
    content, reasoning = (
        "".join(delta.text for delta in deltas if delta.kind == kind)
        for kind in ("content", "reasoning")
    )
    calls = tuple(delta.name for delta in deltas if delta.kind == "call" and delta.name)
    tops = result.top_logprobs or [()]
    return Reply(
        content,
        reasoning,
        calls,
        result.finish_reason == "length",
        tuple(result.token_ids),
        tops[0],
    )


def _has_thoughts(llm: LLM) -> bool:
    from ingle.prompt.deepseek_r1 import has_thinking

    assert llm.tokenizer is not None
    return has_thinking(llm.tokenizer)


def _between_specials(ids: Sequence[int], is_special: Callable[[int], bool]) -> list[int]:
    """The first run of ordinary tokens: a role that the model writes itself stands before it."""
    start = next((i for i, index in enumerate(ids) if not is_special(index)), len(ids))
    rest = ids[start:]
    return list(rest[: next((i for i, index in enumerate(rest) if is_special(index)), len(rest))])


def _log_sum(logs: Sequence[float]) -> float:
    peak = max(logs)
    return peak + math.log(sum(math.exp(x - peak) for x in logs))
