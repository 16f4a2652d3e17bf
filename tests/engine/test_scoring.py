"""Log-probabilities of the prompt equal those of the whole model, however it is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingle.engine.config import EngineConfig
from ingle.engine.engine import Engine
from ingle.engine.request import Request, SamplingParams, TokenEvent, TokenOut
from ingle.errors import InvalidRequestError
from tests.engine import tiny
from tests.engine.drive import run
from tests.engine.fake_model import FakeModel
from tests.engine.test_engine import prompt


def params(max_tokens: int = 0, top: int = 2, **more: Any) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, prompt_logprobs=top, seed=1, **more)


def events(engine: Engine, requests: list[Request]) -> dict[str, list[TokenEvent]]:
    out: dict[str, list[TokenEvent]] = {}
    for request in requests:
        engine.submit(request)
    while engine.has_work:
        for event in engine.step():
            out.setdefault(event.request_id, []).append(event)
    assert engine.stats().pages_used == 0
    return out


def scores(found: list[TokenEvent]) -> tuple[TokenOut, ...]:
    """The one event that has them."""
    having = [event.prompt_logprobs for event in found if event.prompt_logprobs is not None]
    assert len(having) == 1
    return having[0]


def check(ids: list[int], scored: tuple[TokenOut, ...], top: int) -> None:
    assert [token.id for token in scored] == ids
    assert scored[0].logprob is None and scored[0].top_logprobs == ()
    expected = torch.log_softmax(tiny.model()(torch.tensor([ids]))[0].double(), -1)
    for position, token in enumerate(scored[1:]):
        row = expected[position]
        assert token.logprob == pytest.approx(row[token.id].item(), abs=2e-4)
        assert len(token.top_logprobs) == top
        best = row.topk(top).values.tolist() if top else []
        assert [p for _, p in token.top_logprobs] == pytest.approx(best, abs=2e-4)


@pytest.mark.parametrize("budget", [16, 100, 512])
def test_scores_are_the_models_own(budget: int) -> None:
    requests = [
        Request(str(i), prompt(length, i, 270), params(top=i % 3))
        for i, length in enumerate((1, 2, 64, 65, 130, 200))
    ]
    engine = tiny.engine(token_budget=budget, max_sequences=4)
    found = events(engine, requests)
    for index, request in enumerate(requests):
        check(request.prompt, scores(found[request.id]), index % 3)
        last = found[request.id][-1]
        assert len(found[request.id]) == 1 and last.finish_reason == "length"
        assert last.tokens == () and last.completion_tokens == 0


def test_they_come_with_the_first_token_and_change_no_token() -> None:
    ids = prompt(150, 3, 270)
    plain = run(tiny.engine(), [Request("a", ids, SamplingParams(max_tokens=9, seed=1))])["a"]
    for more in ({}, {"stop": ("never there",)}):  # text that is held back does not hold them back
        engine = tiny.engine(speculative="on", token_budget=64)
        found = events(engine, [Request("a", ids, params(9, **more))])["a"]
        check(ids, scores(found), 2)
        assert found[0].prompt_logprobs is not None
        assert [t.id for event in found for t in event.tokens] == plain.ids


def test_cached_pages_are_not_used_but_made() -> None:
    engine, ids = tiny.engine(), prompt(200, 4, 270)
    run(engine, [Request("a", ids, SamplingParams(max_tokens=2))])
    found = events(engine, [Request("b", ids, params())])["b"]
    assert found[-1].cached_tokens == 0
    check(ids, scores(found), 2)
    other = prompt(200, 5, 270)
    events(engine, [Request("c", other, params())])
    last = run(engine, [Request("d", other, SamplingParams(max_tokens=1))])["d"].last
    assert last and last.cached_tokens == 192


def test_preemption_neither_loses_nor_repeats_scores() -> None:
    """The second is pre-empted by the growth of the first, with 200 of its 250 tokens scored."""
    engine = tiny.engine(pages=6, max_sequences=2, token_budget=4, speculative="off")
    requests = [
        Request("grows", prompt(60, 1, 270), params(200, ignore_eos=True)),
        Request("long", prompt(250, 2, 270), params()),
    ]
    found = events(engine, requests)
    assert engine.stats().preemptions > 0
    for request in requests:
        check(request.prompt, scores(found[request.id]), 2)


def test_texts_are_those_of_the_prompt() -> None:
    text = "née 你好"
    ids = tiny.tokenizer().encode(text)
    scored = scores(events(tiny.engine(), [Request("a", ids, params())])["a"])
    assert "".join(token.text for token in scored) == text


def test_logits_of_few_rows_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(FakeModel(), None, EngineConfig())
    sizes: list[int] = []
    plain = engine._runner.logits
    monkeypatch.setattr(
        engine._runner, "logits", lambda h, rows: sizes.append(len(rows)) or plain(h, rows)
    )
    events(engine, [Request("a", prompt(400), params())])
    assert sum(sizes) == 399 and max(sizes) <= 64


def test_bounds() -> None:
    for bad in ({"prompt_logprobs": 21}, {"prompt_logprobs": -1}, {"max_tokens": 0}):
        with pytest.raises(InvalidRequestError):
            SamplingParams(**bad)
    with pytest.raises(InvalidRequestError):
        SamplingParams(max_tokens=-1, prompt_logprobs=1)
