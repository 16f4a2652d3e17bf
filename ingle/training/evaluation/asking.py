"""Who is asked: a model in this process, or an endpoint that speaks OpenAI's chat dialect."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingle.engine.progress import progress
from ingle.engine.request import SamplingParams
from ingle.errors import InvalidRequestError

if TYPE_CHECKING:
    from ingle.engine.llm import LLM, Result
    from ingle.hub.endpoint import Endpoint

MOST_SAMPLES = 1024


@dataclass(frozen=True)
class Asking:
    """How every problem is asked: once and greedily, or for several samples.

    temperature: 0 is greedy. max_tokens: of one answer, thought included. seed: decides the
    problems and, with the temperature, the samples. system: an instruction ahead of each question,
    for models that need to be told how an answer is to look. thinking: whether a thought may come
    first, where the model's format has one.
    """

    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 640
    seed: int = 0
    system: str | None = None
    thinking: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise InvalidRequestError(f"samples must be from 1 to {MOST_SAMPLES}.", "samples")
        if self.samples > 1 and self.temperature == 0.0:
            raise InvalidRequestError(
                "Greedy samples are all alike: several samples need a temperature.", "temperature"
            )
        SamplingParams(temperature=self.temperature, max_tokens=self.max_tokens)  # their ranges

    def conversation(self, question: str) -> list[dict[str, str]]:
        """The messages of one question."""
        told = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*told, {"role": "user", "content": question}]


@dataclass(frozen=True)
class Question:
    """One request: a question, and the seed of its sample."""

    text: str
    seed: int


@dataclass(frozen=True)
class Answer:
    """What came back. text: behind the thought. tokens: thought included. state: `cut` ended at
    max_tokens or the context, `too_long` was not asked: the question alone exceeds the context."""

    text: str
    reasoning: str
    tokens: int
    state: str  # done | cut | too_long

    @property
    def judged(self) -> str:
        """What counts as the answer: the last `\\boxed{}`, which other models are taught to write,
        or the whole text."""
        boxed = unboxed(self.text)
        return self.text if boxed is None else boxed


Ask = Callable[[Sequence[Question], Asking], list[Answer]]
NOT_ASKED = Answer("", "", 0, "too_long")


def questions_of(text: str, place: str, asking: Asking) -> list[Question]:
    """The samples of one problem. place: what no other problem of the evaluation is called.

    A seed belongs to its problem and its sample alone, so that other tasks, other numbers of
    problems or more samples change none of them. 31 bits: what every server takes for a seed.
    """
    return [
        Question(text, random.Random(f"{asking.seed}:{place}:{sample}").getrandbits(31))
        for sample in range(asking.samples)
    ]


def unboxed(text: str) -> str | None:
    """What stands in the last whole `\\boxed{...}`, braces inside it included; None without."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for index in range(start, len(text)):
        depth += (text[index] == "{") - (text[index] == "}")
        if depth == 0:
            return text[start:index]
    return None


def ask_model(llm: LLM) -> Ask:
    """Ask a model in this process; samples of one question share its prefill."""

    def ask(questions: Sequence[Question], asking: Asking) -> list[Answer]:
        tokenizer = llm.tokenizer
        if tokenizer is None:
            raise InvalidRequestError("Questions are text, and this model has no tokenizer.")
        chats = [asking.conversation(q.text) for q in questions]
        thinking = asking.thinking
        lengths = [len(llm.encoder.encode(c, tokenizer, thinking=thinking)) for c in chats]
        fits = [length < llm.engine.context for length in lengths]
        params = [
            SamplingParams(
                temperature=asking.temperature, max_tokens=asking.max_tokens, seed=question.seed
            )
            for question, fit in zip(questions, fits, strict=True)
            if fit
        ]
        asked = [chat for chat, fit in zip(chats, fits, strict=True) if fit]
        results = iter(llm.chat(asked, params, thinking) if asked else [])
        return [_answer(next(results)) if fit else NOT_ASKED for fit in fits]

    return ask


def ask_endpoint(endpoint: Endpoint, at_a_time: int) -> Ask:
    """Ask over HTTP; raises EndpointError for what trying again does not mend."""

    def ask(questions: Sequence[Question], asking: Asking) -> list[Answer]:
        bodies = [
            {
                "messages": asking.conversation(question.text),
                "temperature": asking.temperature,
                "max_tokens": asking.max_tokens,
            }
            | ({"seed": question.seed} if asking.temperature > 0 else {})
            | ({} if asking.thinking else {"thinking": {"type": "disabled"}})
            for question in questions
        ]
        with progress(f"asking {endpoint.host}") as show:
            replies = endpoint.chat(bodies, at_a_time, show)
        return [
            NOT_ASKED
            if reply is None
            else Answer(reply.text, reply.reasoning, reply.tokens, "cut" if reply.cut else "done")
            for reply in replies
        ]

    return ask


def _answer(result: Result) -> Answer:
    state = "cut" if result.finish_reason == "length" else "done"
    return Answer(result.text, result.reasoning, len(result.token_ids), state)
