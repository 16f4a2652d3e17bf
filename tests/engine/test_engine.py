"""The engine over the fake model: whatever the schedule, the tokens of each request are its own."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor

from ingle.engine.config import EngineConfig
from ingle.engine.engine import Engine
from ingle.engine.request import Request, SamplingParams
from ingle.errors import ConfigError, ContextLengthError, InvalidRequestError, QueueFullError
from ingle.models.batch import StepBatch
from ingle.prompt.tokenizer import Tokenizer
from tests.engine.drive import Done, collect, run, solo
from tests.engine.fake_model import FakeConfig, FakeModel, FakeTokenizer

TOKENIZER = cast(Tokenizer, FakeTokenizer())


def prompt(length: int, seed: int = 0, vocab: int = 300) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = torch.randint(0, vocab, (length,), generator=generator).tolist()
    return ids


def params(seed: int = 0, max_tokens: int | None = 40, **more: object) -> SamplingParams:
    """Every third seed greedy, the others sampled, some with filters and penalties."""
    base: dict[str, object] = {"temperature": 0.0 if seed % 3 == 0 else 0.9}
    base |= [{}, {"top_p": 0.9}, {"top_k": 20}, {"frequency_penalty": 0.5}][seed % 4]
    return SamplingParams(max_tokens=max_tokens, seed=seed, **(base | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("budget", [1, 7, 64, 512])
def test_chunks_of_any_size_give_the_same_tokens(budget: int) -> None:
    model = FakeModel()
    expected = solo(model, prompt(200), params(1), token_budget=512)
    assert len(expected) == 40
    assert solo(model, prompt(200), params(1), token_budget=budget, max_sequences=1) == expected


def test_alone_equals_among_strangers() -> None:
    model = FakeModel()
    requests = [Request(str(i), prompt(10 + 37 * i, i), params(i)) for i in range(12)]
    engine = Engine(model, None, EngineConfig(max_sequences=5, token_budget=100))
    outputs = run(engine, requests)
    for request in requests:
        assert outputs[request.id].ids == solo(model, request.prompt, request.params)


def test_a_step_never_exceeds_its_budget_and_decodes_first() -> None:
    sizes: list[int] = []
    model = FakeModel(num_mtp=1)
    model.on_step = lambda batch: sizes.append(len(batch.tokens_N))
    config = EngineConfig(
        max_sequences=8, token_budget=20, speculative="on", draft_length=4, prefix_cache=False
    )
    engine = Engine(model, None, config)
    outputs = run(engine, [Request(str(i), prompt(60, i), params(i)) for i in range(20)])
    assert max(sizes) == 20 and len(outputs) == 20
    assert all(len(done.ids) == 40 for done in outputs.values())


def test_cache_hit_equals_miss() -> None:
    model = FakeModel()
    engine = Engine(model, None, EngineConfig())
    ids = prompt(64 * 3 + 10)
    first = run(engine, [Request("a", ids, params(1))])["a"]
    again = run(engine, [Request("b", ids, params(1))])["b"]
    assert first.last and first.last.cached_tokens == 0
    assert again.last and again.last.cached_tokens == 64 * 3
    assert again.ids == first.ids
    stats = engine.stats()
    assert (stats.prompt_tokens, stats.cached_tokens) == (2 * len(ids), 64 * 3)


def test_the_last_token_is_always_computed_and_answers_are_cached_too() -> None:
    engine = Engine(FakeModel(), None, EngineConfig())
    ids = prompt(128)
    first = run(engine, [Request("a", ids, params(1, 100))])["a"]
    again = run(engine, [Request("b", ids, params(1))])["b"]
    assert again.last and again.last.cached_tokens == 64
    conversation = ids + first.ids
    follow = run(engine, [Request("c", conversation, params(2))])["c"]
    assert follow.last and follow.last.cached_tokens == 192
    assert follow.ids == solo(FakeModel(), conversation, params(2))


def test_another_salt_or_other_weights_see_nothing_of_the_cache() -> None:
    engine = Engine(FakeModel(), None, EngineConfig())
    ids = prompt(200)
    run(engine, [Request("a", ids, params(1), salt=b"one")])
    other = run(engine, [Request("b", ids, params(1), salt=b"two")])["b"]
    assert other.last and other.last.cached_tokens == 0
    engine.reset_prefix(b"new weights")
    assert engine.stats().pages_cached == 0
    fresh = run(engine, [Request("c", ids, params(1), salt=b"one")])["c"]
    assert fresh.last and fresh.last.cached_tokens == 0


def test_equal_prompts_in_one_batch() -> None:
    model = FakeModel()
    engine = Engine(model, None, EngineConfig())
    outputs = run(engine, [Request(str(i), prompt(150), params(i)) for i in range(6)])
    for i in range(6):
        assert outputs[str(i)].ids == solo(model, prompt(150), params(i))


def test_old_pages_make_room_for_new_ones() -> None:
    model = FakeModel()
    engine = Engine(model, None, EngineConfig(pages=8, max_sequences=2))
    for i in range(12):
        request = Request(str(i), prompt(200, i), params(i))
        assert run(engine, [request])[str(i)].ids == solo(model, request.prompt, request.params)
    stats = engine.stats()
    assert stats.pages_cached <= 8 and stats.pages_total == 8


@pytest.mark.parametrize("speculative", ["off", "on"])
def test_preemption_changes_nothing(speculative: str) -> None:
    model = FakeModel(num_mtp=1, agreement=0.7)
    config = EngineConfig(pages=9, max_sequences=6, speculative=speculative)  # type: ignore[arg-type]
    engine = Engine(model, None, config)
    requests = [Request(str(i), prompt(50, i), params(i, 200)) for i in range(8)]
    outputs = run(engine, requests)
    assert engine.stats().preemptions > 0
    for request in requests:
        expected = solo(FakeModel(), request.prompt, request.params)
        assert outputs[request.id].ids == expected and len(expected) == 200
        last = outputs[request.id].last
        assert last and last.cached_tokens == 0  # its own pages found again are no cache hit


def test_cancel_takes_effect_within_a_step_and_frees_everything() -> None:
    engine = Engine(FakeModel(), None, EngineConfig(max_sequences=2))
    for i in range(4):
        engine.submit(Request(str(i), prompt(100, i), params(i, None)))
    outputs: dict[str, Done] = {}
    for _ in range(5):
        collect(outputs, engine.step())
    assert engine.stats().running == 2 and engine.stats().waiting == 2
    for i in (0, 3):  # one runs, one waits
        engine.cancel(str(i))
    engine.cancel("nobody")
    collect(outputs, engine.step())
    assert outputs["0"].reason == outputs["3"].reason == "cancelled"
    assert len(outputs["0"].ids) == 5
    for i in (1, 2):
        engine.cancel(str(i))
    collect(outputs, engine.step())
    assert not engine.has_work
    stats = engine.stats()
    assert stats.pages_used == stats.running == stats.waiting == 0
    engine.cancel("1")
    engine.submit(
        Request("1", prompt(5), params(0))
    )  # an id may be used again, and is not cancelled
    assert len(run(engine, [])["1"].ids) == 40


def test_requests_that_cannot_be_served_are_refused_with_a_reason() -> None:
    engine = Engine(FakeModel(), None, EngineConfig(context=256))
    for bad, error in (
        (Request("a", [], params()), InvalidRequestError),
        (Request("a", [300], params()), InvalidRequestError),
        (Request("a", [-1], params()), InvalidRequestError),
        (Request("a", prompt(256), params()), ContextLengthError),
        (Request("a", [1], params(logit_bias={300: 1.0})), InvalidRequestError),
        (Request("a", [1], params(stop=("x",))), InvalidRequestError),
    ):
        with pytest.raises(error):
            engine.submit(bad)
    assert not engine.has_work
    with pytest.raises(ContextLengthError, match="max_tokens is 1000000000"):
        engine.check_length(10, 10**9)
    engine.check_length(10, 246)
    engine.submit(Request("a", [1], params()))
    with pytest.raises(InvalidRequestError):
        engine.submit(Request("a", [1], params()))


def test_output_ends_at_the_context_or_at_max_tokens() -> None:
    engine = Engine(FakeModel(), None, EngineConfig(context=100))
    outputs = run(
        engine,
        [
            Request("open", prompt(30), params(1, None)),
            Request("huge", prompt(30), params(1, 10**9)),
            Request("one", prompt(30), params(1, 1)),
            Request("full", prompt(99), params(1, None)),
        ],
    )
    lengths = {name: len(done.ids) for name, done in outputs.items()}
    assert lengths == {"open": 70, "huge": 70, "one": 1, "full": 1}
    assert {done.reason for done in outputs.values()} == {"length"}


def test_a_small_cache_lowers_the_context() -> None:
    engine = Engine(FakeModel(), None, EngineConfig(pages=2))
    assert engine.context == 128
    assert len(run(engine, [Request("a", prompt(10), params(1, None))])["a"].ids) == 118
    with pytest.raises(ConfigError):
        Engine(FakeModel(), None, EngineConfig(cache_bytes=100))


def test_bytes_per_token_equal_the_formula() -> None:
    engine = Engine(FakeModel(num_mtp=1), None, EngineConfig(pages=10, cache_dtype=torch.bfloat16))
    stats = engine.stats()
    assert stats.bytes_per_token == 1 * 2 * 2 and stats.mtp_bytes_per_token == 2 * 2


def test_end_tokens_and_stop_ids() -> None:
    base = solo(FakeModel(), prompt(20), params(0))
    eos, stop = base[7], base[4]
    assert eos not in base[:7] and stop not in base[:4]
    engine = Engine(FakeModel(FakeConfig(eos_ids=(eos,))), None, EngineConfig())
    outputs = run(
        engine,
        [
            Request("eos", prompt(20), params(0)),
            Request("ignored", prompt(20), params(0, ignore_eos=True)),
            Request("stop", prompt(20), params(0, stop_token_ids=(stop,), ignore_eos=True)),
        ],
    )
    assert outputs["eos"].ids == base[:8] and outputs["ignored"].ids == base
    assert outputs["stop"].ids == base[:5]
    for name, token in (("eos", eos), ("stop", stop)):
        last = outputs[name].last
        assert last and (last.finish_reason, last.stop_reason) == ("stop", token)
        assert outputs[name].tokens[-1].text == ""


def test_stop_strings_end_the_text_and_count_the_tokens() -> None:
    model = FakeModel(FakeConfig(vocab_size=256))
    ids = prompt(9, vocab=256)
    engine = Engine(model, TOKENIZER, EngineConfig())
    plain = run(engine, [Request("a", ids, params(0))])["a"]
    stop = plain.text[10:13]
    stopping = params(0, stop=(stop, "never"))
    done = run(engine, [Request("a", ids, stopping)])["a"]
    assert done.text == plain.text[: plain.text.index(stop)] and done.last
    assert (done.reason, done.last.stop_reason) == ("stop", stop)
    assert done.ids == plain.ids[: len(done.ids)]


class Broken(FakeModel):
    """Breaks for sequences that begin with a marked token: NaN logits for 13, a crash for 14."""

    def step(self, batch: StepBatch, cache_LPGC: Tensor) -> Tensor:
        hidden = super().step(batch, cache_LPGC)
        firsts = cache_LPGC[0, batch.pages_SP[batch.sequence_N.long(), 0].long(), 0, 0]
        if (firsts == 14).any():
            raise RuntimeError("-".join(["a", "prompt"]))
        hidden[firsts == 13] = -1.0
        return hidden

    def logits(self, hidden_ND: Tensor) -> Tensor:
        out = super().logits(hidden_ND.clamp(min=0.0))
        out[hidden_ND[:, 0] < 0] = float("nan")
        return out


def test_a_failing_request_does_not_take_the_others_down(caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(Broken(), None, EngineConfig())
    good = Request("good", [1, 2, 3], params(1))
    outputs = run(engine, [good, Request("nan", [13, 2], params(1)), Request("n", [1], params(2))])
    assert outputs["nan"].reason == "error" and outputs["nan"].last
    assert outputs["nan"].last.error and outputs["nan"].ids == []
    assert outputs["good"].ids == solo(FakeModel(), good.prompt, good.params)
    crashed = run(engine, [Request("crash", [14, 2], params(1))])["crash"]
    assert crashed.reason == "error" and crashed.last and crashed.last.error
    assert "a-prompt" not in caplog.text + crashed.last.error and "RuntimeError" in caplog.text
    assert run(engine, [replace(good, id="again")])["again"].ids == outputs["good"].ids


def test_a_thousand_requests_at_once_are_queued_or_refused() -> None:
    engine = Engine(FakeModel(), None, EngineConfig(max_sequences=16, max_waiting=200))
    accepted = 0
    for i in range(1000):
        try:
            engine.submit(Request(str(i), [i % 300, 5], params(i, 3)))
            accepted += 1
        except QueueFullError:
            pass
    assert accepted == 216
    outputs = run(engine, [])
    assert len(outputs) == 216 and all(len(done.ids) == 3 for done in outputs.values())
    assert len(run(engine, [Request("next", [1], params(0))])["next"].ids) == 40


def test_submit_and_cancel_from_other_threads() -> None:
    model = FakeModel()
    engine = Engine(model, None, EngineConfig(max_sequences=4, max_waiting=1000))
    outputs: dict[str, Done] = {}
    done = threading.Event()

    def client(name: int) -> None:
        for i in range(12):
            engine.submit(Request(f"{name}.{i}", prompt(5 + i, i), params(i, 8)))
            if i % 4 == 3:
                engine.cancel(f"{name}.{i}")

    clients = [threading.Thread(target=client, args=(n,)) for n in range(6)]
    for thread in clients:
        thread.start()
    threading.Thread(target=lambda: ([t.join() for t in clients], done.set())).start()
    while engine.has_work or not done.is_set():
        collect(outputs, engine.step())
    assert len(outputs) == 72 and engine.stats().pages_used == 0
    for i in range(12):
        expected = solo(model, prompt(5 + i, i), params(i, 8))
        for n in range(6):
            ids = outputs[f"{n}.{i}"].ids
            assert ids == (expected if i % 4 != 3 else expected[: len(ids)])


def test_two_engines_in_one_process_do_not_meet() -> None:
    one, two = (Engine(FakeModel(), None, EngineConfig(pages=20)) for _ in range(2))
    one.submit(Request("x", prompt(100), params(1)))
    two.submit(Request("x", prompt(100, 1), params(2)))
    outputs: tuple[dict[str, Done], dict[str, Done]] = ({}, {})
    while one.has_work or two.has_work:
        collect(outputs[0], one.step())
        collect(outputs[1], two.step())
    assert outputs[0]["x"].ids == solo(FakeModel(), prompt(100), params(1))
    assert outputs[1]["x"].ids == solo(FakeModel(), prompt(100, 1), params(2))
