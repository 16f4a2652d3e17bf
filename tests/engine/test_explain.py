"""What the cache holds of a prompt, and the reason why a hit ends where it does."""

from __future__ import annotations

import pytest

from ingle.engine.config import EngineConfig
from ingle.engine.engine import Engine
from ingle.engine.explain import PrefixReport, RecentPrompts
from ingle.engine.request import Request
from tests.engine.drive import run
from tests.engine.fake_model import FakeModel
from tests.engine.test_engine import params, prompt


def engine_after(ids: list[int], max_tokens: int = 1, **config: int) -> tuple[Engine, list[int]]:
    """An engine that has answered one prompt, and the whole sequence."""
    engine = Engine(FakeModel(), None, EngineConfig(**config))  # type: ignore[arg-type]
    done = run(engine, [Request("a", ids, params(0, max_tokens), salt=b"s")])["a"]
    return engine, ids + done.ids


def test_each_reason() -> None:
    ids = prompt(200)
    engine, _ = engine_after(ids)
    assert engine.explain(ids, b"s") == PrefixReport(200, 192, 200, "complete")
    assert engine.explain([*ids, 1, 2], b"s") == PrefixReport(202, 192, 200, "complete")
    assert engine.explain(ids[:129], b"s") == PrefixReport(129, 128, 129, "complete")
    other = [*ids[:100], ids[100] ^ 1, *ids[101:]]
    assert engine.explain(other, b"s") == PrefixReport(200, 64, 100, "diverged")
    assert engine.explain(other[:64] + prompt(70, 5), b"s").reason == "diverged"
    longer = ids + prompt(200, 7)
    assert engine.explain(longer, b"s") == PrefixReport(400, 192, 200, "page not full")
    assert engine.explain(ids[:50], b"s") == PrefixReport(50, 0, 50, "page not full")
    assert engine.explain(ids[:64], b"s") == PrefixReport(64, 0, 64, "page not full")
    nothing = PrefixReport(200, 0, 0, "nothing like it was seen")
    assert engine.explain(ids, b"other salt") == nothing
    assert engine.explain([ids[0] ^ 1, *ids[1:]], b"s") == nothing


def test_the_report_is_what_a_request_then_finds() -> None:
    ids = prompt(300)
    engine, sequence = engine_after(ids, 100)
    for length in (64, 65, 128, 129, 300, 360, 399):
        found = engine.explain([*sequence[:length], 9], b"s").cached_tokens
        request = Request("b", [*sequence[:length], 9], params(1, 1), salt=b"s")
        last = run(engine, [request])["b"].last
        assert last and last.cached_tokens == found


def test_pages_that_made_room_are_evicted() -> None:
    engine, _ = engine_after(prompt(200), pages=8, max_sequences=1)
    for seed in range(3):
        run(engine, [Request("b", prompt(250, 3 + seed), params(0, 1))])
    assert engine.explain(prompt(200), b"s") == PrefixReport(200, 0, 200, "evicted")


def test_running_requests_count_as_far_as_they_are_computed() -> None:
    engine = Engine(FakeModel(), None, EngineConfig(token_budget=100))
    engine.submit(Request("a", prompt(300), params(0, 5), salt=b"s"))
    engine.step()
    report = engine.explain(prompt(300), b"s")
    assert (report.cached_tokens, report.matched_tokens) == (64, 100)
    run(engine, [])


def test_an_answer_counts_too() -> None:
    ids = prompt(100)
    engine, sequence = engine_after(ids, 100)
    report = engine.explain([*sequence[:190], 1, 2, 3, 4], b"s")
    assert report.matched_tokens in (190, 191) and report.cached_tokens == 128


@pytest.mark.parametrize("way", ["reset", "off"])
def test_nothing_is_remembered_without_a_cache(way: str) -> None:
    ids = prompt(200)
    engine, _ = engine_after(ids, prefix_cache=way == "reset")
    if way == "reset":
        engine.reset_prefix(b"new weights")
    assert engine.explain(ids, b"s") == PrefixReport(200, 0, 0, "nothing like it was seen")


def test_what_is_remembered_is_bounded_in_tokens() -> None:
    recent = RecentPrompts(most_tokens=100)
    for index in range(50):
        recent.add(b"s", [index] * 30)
    assert [tokens[0] for tokens in recent.of(b"s")] == [47, 48, 49]
    recent.add(b"t", [7] * 101)
    recent.add(b"t", [])
    assert recent.of(b"t") == [] and len(recent.of(b"s")) == 3
