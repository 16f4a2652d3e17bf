"""Names, comparison and eviction of cached pages."""

from __future__ import annotations

from ingle.engine.config import EngineConfig
from ingle.engine.engine import Engine
from ingle.engine.request import Request
from tests.engine.drive import run, solo
from tests.engine.fake_model import FakeModel
from tests.engine.test_engine import params, prompt


def cached(engine: Engine, name: str, ids: list[int]) -> int:
    last = run(engine, [Request(name, ids, params(0, 1))])[name].last
    assert last is not None
    return last.cached_tokens


def test_names_are_chained_over_weights_salt_and_all_tokens_before() -> None:
    def names(fingerprint: bytes, salt: bytes, ids: list[int]) -> list[bytes]:
        engine = Engine(FakeModel(), None, EngineConfig(fingerprint=fingerprint))
        sequence = engine._sequence(Request("a", ids, params(), salt))
        return [engine._prefix._name(sequence, index) for index in (0, 1)]

    ids = prompt(128)
    base = names(b"w", b"s", ids)
    assert names(b"w", b"s", ids) == base and all(len(name) == 32 for name in base)
    assert names(b"w", b"s", [*ids[:-1], ids[-1] ^ 1])[0] == base[0]
    changed = [
        names(b"x", b"s", ids),
        names(b"w", b"t", ids),
        names(b"ws", b"", ids),
        names(b"w", b"s", [ids[0] ^ 1, *ids[1:]]),
    ]
    assert len({name for pair in [base, *changed] for name in pair}) == 10


def test_an_equal_name_with_other_tokens_is_no_hit() -> None:
    engine = Engine(FakeModel(), None, EngineConfig())
    run(engine, [Request("a", prompt(100, 1), params(0))])
    other = Request("b", prompt(100, 2), params(0))
    forged = engine._prefix._name(engine._sequence(other), 0)
    engine._prefix._page_of[forged] = next(iter(engine._prefix._page_of.values()))
    done = run(engine, [other])["b"]
    assert done.last and done.last.cached_tokens == 0
    assert done.ids == solo(FakeModel(), other.prompt, other.params)


def test_the_oldest_chain_is_evicted_from_its_end() -> None:
    engine = Engine(FakeModel(), None, EngineConfig(pages=8, max_sequences=1))
    old, new = prompt(64 * 3 + 1, 1), prompt(64 * 3 + 1, 2)
    assert cached(engine, "old", old) == cached(engine, "new", new) == 0
    assert engine.stats().pages_cached == 6
    cached(engine, "third", prompt(64 * 3 + 1, 3))  # needs four pages: two empty, two evicted
    assert cached(engine, "old again", old[:65]) == 64  # its beginning is still there
    assert cached(engine, "new again", new) == 64 * 3


def test_without_a_prefix_cache_nothing_is_kept() -> None:
    engine = Engine(FakeModel(), None, EngineConfig(prefix_cache=False))
    assert cached(engine, "a", prompt(200)) == cached(engine, "b", prompt(200)) == 0
    assert engine.stats().pages_cached == 0
