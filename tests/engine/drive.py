"""Shared by the engine's tests: build an engine, run requests to their end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ingle.engine.config import EngineConfig
from ingle.engine.engine import Engine
from ingle.engine.request import Request, SamplingParams, TokenEvent, TokenOut
from ingle.engine.runner import StepModel


@dataclass
class Done:
    """All that came out for one request."""

    tokens: list[TokenOut] = field(default_factory=list)
    last: TokenEvent | None = None

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    @property
    def reason(self) -> str | None:
        return self.last.finish_reason if self.last else None


def collect(outputs: dict[str, Done], events: Sequence[TokenEvent]) -> None:
    for event in events:
        done = outputs.setdefault(event.request_id, Done())
        assert done.last is None, "an event after the last one"
        done.tokens += event.tokens
        if event.finish_reason is not None:
            done.last = event
            if event.finish_reason != "error":
                assert event.completion_tokens == len(done.tokens)


def run(engine: Engine, requests: Sequence[Request], most_steps: int = 20_000) -> dict[str, Done]:
    for request in requests:
        engine.submit(request)
    outputs: dict[str, Done] = {}
    for _ in range(most_steps):
        if not engine.has_work:
            break
        collect(outputs, engine.step())
    assert not engine.has_work, "the engine does not come to an end"
    assert engine.stats().pages_used == 0, "pages leaked"
    return outputs


def solo(model: StepModel, prompt: list[int], params: SamplingParams, **config: Any) -> list[int]:
    """The tokens of a request alone in a fresh, plain engine."""
    engine = Engine(model, None, EngineConfig(**({"speculative": "off"} | config)))
    return run(engine, [Request("solo", prompt, params)])["solo"].ids
