"""Turns between clients, priorities, and equal prompts that are computed once."""

from __future__ import annotations

from dataclasses import replace

from ingle.engine.config import EngineConfig
from ingle.engine.engine import Engine
from ingle.engine.queue import WaitingLine
from ingle.engine.request import Request
from ingle.engine.sequence import Sequence
from ingle.models.batch import StepBatch
from tests.engine.drive import Done, collect, run, solo
from tests.engine.fake_model import FakeModel
from tests.engine.test_engine import params, prompt


def submit(engine: Engine, name: str, client: bytes, length: int = 20, **more: int) -> None:
    seed = sum(name.encode())
    engine.submit(Request(name, prompt(length, seed), params(seed, 8), client=client, **more))


def steps_until(engine: Engine, name: str) -> tuple[int, list[str]]:
    """Steps until a request ends, and who ended before it."""
    ended: list[str] = []
    for step in range(1, 10_000):
        ended += [event.request_id for event in engine.step() if event.finish_reason is not None]
        if name in ended:
            return step, ended[: ended.index(name)]
    raise AssertionError("the request never ended")


def test_a_thousand_requests_of_one_client_delay_another_by_its_turn_only() -> None:
    engine = Engine(FakeModel(), None, EngineConfig(max_sequences=4, max_waiting=2000))
    for index in range(1000):
        submit(engine, f"a{index}", b"A")
    for _ in range(20):
        engine.step()
    submit(engine, "b", b"B")
    steps, before = steps_until(engine, "b")
    assert steps <= 20 and len(before) <= 8  # those that ran, and one turn of A's
    for index in range(1000):
        engine.cancel(f"a{index}")
    run(engine, [])
    line = engine._scheduler.waiting
    assert not (line._lines or line._clients or line._priorities or line._served)


def test_clients_are_served_alike_whatever_they_ask_for() -> None:
    """One asks for long prompts, one for short ones: tokens count, not requests."""
    engine = Engine(FakeModel(), None, EngineConfig(max_sequences=2, max_waiting=2000))
    for index in range(60):
        submit(engine, f"long{index}", b"A", length=300)
        submit(engine, f"short{index}", b"B", length=30)
    ended = {"long": 0, "short": 0}
    while ended["short"] < 40:
        for event in engine.step():
            if event.finish_reason is not None:
                ended[event.request_id.rstrip("0123456789")] += 1
    assert 3 <= ended["long"] <= 7  # 40 * 38 tokens are 5 * 308


def test_among_equals_the_first_come_is_the_first_served() -> None:
    engine = Engine(FakeModel(), None, EngineConfig(max_sequences=1))
    for index in range(12):
        submit(engine, f"{index}", b"A")
    _, before = steps_until(engine, "11")
    assert before == [str(index) for index in range(11)]


def test_a_lower_priority_number_goes_first() -> None:
    engine = Engine(FakeModel(), None, EngineConfig(max_sequences=1))
    for index, priority in enumerate((0, 5, -1, 5, 0)):
        submit(engine, f"{index}", b"A" if index % 2 else b"B", priority=priority)
    _, before = steps_until(engine, "3")
    assert before == ["2", "0", "4", "1"]


def test_the_victim_is_the_least_important() -> None:
    """Outputs are unchanged, and whoever matters more is never pre-empted for the others."""
    model = FakeModel()
    engine = Engine(model, None, EngineConfig(pages=14, max_sequences=6))
    requests = [Request(str(i), prompt(50, i), params(i, 150)) for i in range(5)]
    for request in requests:
        engine.submit(request)
    outputs: dict[str, Done] = {}
    collect(outputs, engine.step())
    requests.append(Request("5", prompt(50, 5), params(5, 150), priority=-1))
    engine.submit(requests[5])  # the youngest, and so the first to go but for its priority
    preempted: set[str] = set()
    running: set[str] = set()
    while engine.has_work:
        events = engine.step()
        collect(outputs, events)
        now = {s.request.id for s in engine._scheduler.running}
        preempted |= running - now - {e.request_id for e in events if e.finish_reason}
        running = now
    assert preempted and "5" not in preempted
    for request in requests:
        assert outputs[request.id].ids == solo(model, request.prompt, request.params)


def line_with(*sequences: Sequence) -> WaitingLine:
    line = WaitingLine()
    for sequence in sequences:
        line.enter(sequence)
    return line


def sequence(engine: Engine, client: bytes, name: str = "x") -> Sequence:
    return engine._sequence(Request(name, [1, 2, 3], params(), client=client))


def test_who_comes_back_starts_level_with_the_others() -> None:
    engine = Engine(FakeModel(), None, EngineConfig())
    a, b = sequence(engine, b"A"), sequence(engine, b"B")
    line = line_with(a, b)
    assert not line.uniform
    line.serve(a, 1000)
    line.serve(b, 700)
    line.leave(b, waits=True)
    assert line.uniform
    newcomer, again = sequence(engine, b"C"), sequence(engine, b"B")
    line.enter(newcomer)
    line.enter(again)
    assert [line.rank(s) for s in (a, newcomer, again)] == [(0, 1000)] * 3
    assert line.pop() is a and line.pop() is newcomer and line.pop() is again
    for gone in (a, newcomer, again):
        line.leave(gone, waits=False)
    line.enter(late := sequence(engine, b"D"))
    assert line.rank(late) == (0, 1000)  # level with whoever left last
    assert line.pop() is late and line.best_rank is None


def test_accounts_of_clients_that_left_are_bounded() -> None:
    engine = Engine(FakeModel(), None, EngineConfig())
    line = WaitingLine()
    for index in range(3000):
        line.enter(one := sequence(engine, str(index).encode()))
        line.leave(one, waits=True)
    assert len(line._idle) <= 1024 and not line._served


def rows_for(count: int, length: int, **config: int) -> tuple[int, Engine, list[Request]]:
    """Rows that a batch of equal prompts costs."""
    rows = 0

    def count_rows(batch: StepBatch) -> None:
        nonlocal rows
        rows += len(batch.tokens_N)

    model = FakeModel()
    model.on_step = count_rows
    engine = Engine(model, None, EngineConfig(max_sequences=8, **config))  # type: ignore[arg-type]
    base = Request("0", prompt(length), params(1, 10))
    requests = [replace(base, id=str(i), params=params(i, 10)) for i in range(count)]
    outputs = run(engine, requests)
    for request in requests:
        assert outputs[request.id].ids == solo(FakeModel(), request.prompt, request.params)
    return rows, engine, requests


def test_equal_prompts_submitted_together_are_computed_once() -> None:
    for budget in (64, 100, 512):
        rows, engine, _ = rows_for(6, 64 * 4 + 10, token_budget=budget)
        assert rows == (64 * 4 + 10) + 5 * 10 + 6 * 9  # the prompt, five ends of it, the answers
        assert engine.stats().cached_tokens == 5 * 64 * 4


def test_others_are_not_held_up_by_those_that_wait_for_a_page() -> None:
    engine = Engine(FakeModel(), None, EngineConfig(max_sequences=8, token_budget=512))
    for index in range(4):
        engine.submit(Request(f"same{index}", prompt(490), params(0, 5)))
    engine.submit(Request("other", prompt(20, 9), params(0, 5)))
    engine.step()
    assert [s.request.id for s in engine._scheduler.running] == ["same0", "other"]
    engine.step()
    assert engine.stats().running == 5


def test_a_long_prompt_of_one_client_does_not_hold_up_another() -> None:
    engine = Engine(FakeModel(), None, EngineConfig(max_sequences=4, token_budget=64))
    engine.submit(Request("long", prompt(1000), params(0, 5), client=b"A"))
    for _ in range(3):
        engine.step()
    engine.submit(Request("short", prompt(50, 9), params(0, 5), client=b"B"))
    steps, before = steps_until(engine, "short")
    assert steps == 6 and before == []


def test_short_equal_prompts_do_not_wait() -> None:
    engine = Engine(FakeModel(), None, EngineConfig(max_sequences=8))
    for index in range(5):
        engine.submit(Request(str(index), prompt(60), params(index, 5)))
    engine.step()
    assert engine.stats().running == 5
