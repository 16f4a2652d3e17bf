"""Any interleaving of submit, cancel and step: no page is lost, every output is its own."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ingle.engine.config import EngineConfig
from ingle.engine.engine import Engine
from ingle.engine.request import Request
from ingle.errors import QueueFullError
from tests.engine.drive import Done, collect, solo
from tests.engine.fake_model import FakeModel
from tests.engine.test_engine import params, prompt


@cache
def expected(kind: int) -> list[int]:
    return solo(FakeModel(), *request_of(kind))


def request_of(kind: int) -> tuple[list[int], Any]:
    """Ten kinds of request; some share a beginning, some fill most of the cache."""
    shared = prompt(70)
    return shared[: 10 * kind] + prompt(1 + 23 * (kind % 4), kind), params(kind, 5 + 13 * kind)


actions = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 9)),
        st.tuples(st.just("cancel"), st.integers(0, 40)),
        st.tuples(st.just("step"), st.integers(1, 12)),
    ),
    max_size=40,
)
configs = st.fixed_dictionaries(
    {
        "pages": st.integers(5, 14),
        "max_sequences": st.integers(1, 6),
        "token_budget": st.sampled_from([6, 33, 512]),
        "speculative": st.sampled_from(["on", "off", "auto"]),
        "draft_length": st.integers(1, 4),
        "prefix_cache": st.booleans(),
        "max_waiting": st.integers(0, 20),
    }
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(actions, configs, st.sampled_from([0.0, 0.7, 1.0]))
def test_random_schedules(
    steps: list[tuple[str, int]], config: dict[str, Any], agreement: float
) -> None:
    model = FakeModel(num_mtp=1, agreement=agreement)
    engine = Engine(model, None, EngineConfig(**config))
    kinds: dict[str, int] = {}
    outputs: dict[str, Done] = {}
    for what, number in steps:
        if what == "submit":
            name = str(len(kinds))
            try:
                client, priority = bytes([number % 3]), number % 2
                request = Request(name, *request_of(number), client=client, priority=priority)
                engine.submit(request)
                kinds[name] = number
            except QueueFullError:
                pass
        elif what == "cancel":
            engine.cancel(str(number))
        else:
            for _ in range(number):
                collect(outputs, engine.step())
    for _ in range(5000):
        if not engine.has_work:
            break
        collect(outputs, engine.step())
    assert not engine.has_work
    stats = engine.stats()
    assert stats.pages_used == 0 and stats.running == 0 and stats.waiting == 0
    assert engine._prefix.available == stats.pages_total
    assert set(outputs) == set(kinds)
    for name, kind in kinds.items():
        done = outputs[name]
        if done.reason == "cancelled":
            assert done.ids == expected(kind)[: len(done.ids)]
        else:
            assert done.reason == "length" and done.ids == expected(kind)
    if config["draft_length"] == 1:
        assert model.mtp_mismatches == 0
