"""Speculative decoding changes the speed and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from ingle.engine.config import EngineConfig
from ingle.engine.engine import Engine
from ingle.engine.request import Request, SamplingParams
from ingle.engine.speculative import DraftController
from ingle.errors import ConfigError
from tests.engine.drive import run, solo
from tests.engine.fake_model import FakeConfig, FakeModel
from tests.engine.test_engine import params, prompt


def engine_of(agreement: float, length: int, **more: object) -> tuple[Engine, FakeModel]:
    model = FakeModel(num_mtp=1, agreement=agreement)
    config = EngineConfig(speculative="on", draft_length=length, **more)  # type: ignore[arg-type]
    return Engine(model, None, config), model


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize("agreement", [0.0, 0.6, 1.0])
def test_tokens_are_those_of_plain_decoding(agreement: float, length: int) -> None:
    engine, model = engine_of(agreement, length, max_sequences=4, token_budget=50)
    requests = [Request(str(i), prompt(20 + 23 * i, i), params(i, 70)) for i in range(8)]
    outputs = run(engine, requests)
    for request in requests:
        expected = solo(FakeModel(), request.prompt, request.params)
        assert outputs[request.id].ids == expected and len(expected) == 70
    assert model.mtp_mismatches == 0
    stats = engine.stats()
    assert len(stats.drafted) == length and stats.drafted[0] > 100
    if agreement == 0.0:
        assert stats.acceptance[0] < 0.2
    if agreement == 0.6:
        assert 0.2 < stats.acceptance[0] < 0.95


def test_perfect_drafts_are_all_accepted_and_save_steps() -> None:
    engine, _ = engine_of(1.0, 4)
    request = Request("a", prompt(30), SamplingParams(max_tokens=101, seed=1))
    assert len(run(engine, [request])["a"].ids) == 101
    stats = engine.stats()
    assert stats.acceptance == (1.0, 1.0, 1.0, 1.0)
    assert stats.steps <= 1 + 100 // 5 + 2  # pages that end early cost a draft or two


def test_penalties_count_the_drafts_before_a_token() -> None:
    config = FakeConfig(vocab_size=6)  # so few that every draft repeats an earlier token
    for i, penalty in enumerate(
        ({"presence_penalty": 2.0}, {"frequency_penalty": 1.0}, {"repetition_penalty": 3.0})
    ):
        chosen = SamplingParams(max_tokens=60, temperature=0.5 * i, seed=i, **penalty)  # type: ignore[arg-type]
        model = FakeModel(config, num_mtp=1)
        engine = Engine(model, None, EngineConfig(speculative="on", draft_length=4))
        done = run(engine, [Request("a", [1], chosen)])["a"]
        assert done.ids == solo(FakeModel(config), [1], chosen)
        assert engine.stats().acceptance[0] == 1.0


def test_an_end_inside_the_drafts_ends_the_output() -> None:
    expected = solo(FakeModel(), prompt(20), params(0))
    eos = expected[7]
    assert eos not in expected[:7]
    model = FakeModel(FakeConfig(eos_ids=(eos,)), num_mtp=1)
    for length in (1, 2, 3, 4):
        engine = Engine(model, None, EngineConfig(speculative="on", draft_length=length))
        done = run(engine, [Request("a", prompt(20), params(0))])["a"]
        assert done.ids == expected[:8] and done.reason == "stop"


def test_drafting_goes_on_after_a_cache_hit() -> None:
    engine, model = engine_of(1.0, 1)
    run(engine, [Request("a", prompt(200), params(1))])
    before = engine.stats().drafted[0]
    done = run(engine, [Request("b", prompt(200), params(2))])["b"]
    assert done.last and done.last.cached_tokens == 192
    assert engine.stats().drafted[0] - before >= 19 and model.mtp_mismatches == 0


def test_emitted_distribution_is_exactly_the_targets() -> None:
    """Second token given the first, over many seeds, with drafts that are often wrong."""
    model = FakeModel(FakeConfig(vocab_size=12), num_mtp=1, agreement=0.5)
    engine = Engine(model, None, EngineConfig(speculative="on", max_waiting=5000))
    ids, draws = [3, 1, 4], 2500
    requests = [
        Request(str(s), ids, SamplingParams(max_tokens=3, seed=s, temperature=1.0))
        for s in range(draws)
    ]
    outputs = run(engine, requests)
    for length in (1, 2, 3):  # the joint distribution of the first `length` tokens, cell by cell
        cells: dict[tuple[int, ...], int] = {}
        for done in outputs.values():
            key = tuple(done.ids[:length])
            cells[key] = cells.get(key, 0) + 1
        for key, count in cells.items():
            p = 1.0
            for i, token in enumerate(key):
                p *= model.distribution(ids + list(key[:i]))[token]
            if p * draws > 20:
                assert abs(count - p * draws) < 5 * np.sqrt(p * draws)
    acceptance = engine.stats().acceptance[0]
    assert 0.1 < acceptance < 0.95


def test_off_runs_no_mtp_and_a_model_without_one_drafts_nothing() -> None:
    for model, mode in ((FakeModel(num_mtp=1), "off"), (FakeModel(), "on")):
        engine = Engine(model, None, EngineConfig(speculative=mode))  # type: ignore[arg-type]
        run(engine, [Request("a", prompt(20), params(1))])
        assert engine.stats().drafted == (0,) and engine.stats().mtp_bytes_per_token == 0
    with pytest.raises(ConfigError):
        EngineConfig(draft_length=5)


def drive(controller: DraftController, steps: int, drafting: float, plain: float) -> list[str]:
    """Simulated steps of one sequence: seconds per token when drafting and when not."""
    phases = []
    drafts = 0
    for _ in range(steps):
        phase = controller.phase(1)
        seconds = 2 * drafting if drafts else plain
        mtp = 0.0 if phase == "off" else 0.3 * plain
        controller.record(1, drafts, 2 if drafts else 1, seconds + (0 if drafts else mtp), mtp)
        drafts = int(phase == "draft")
        phases.append(phase)
    return phases


def test_the_controller_keeps_what_pays() -> None:
    good = drive(DraftController("auto"), 2000, drafting=0.7e-3, plain=1e-3)
    assert good[-1] == "draft" and good.count("draft") > 1800 and "off" not in good
    bad = drive(DraftController("auto"), 2000, drafting=1.2e-3, plain=1e-3)
    assert bad[-1] == "off" and bad.count("off") > 1750 and bad[600:].count("draft") > 0


def test_the_controller_changes_its_mind() -> None:
    controller = DraftController("auto")
    assert controller.pays(1) is None
    drive(controller, 300, drafting=1.5e-3, plain=1e-3)
    assert controller.pays(1) is False
    drive(controller, 1500, drafting=0.6e-3, plain=1e-3)
    assert controller.pays(1) is True
    assert controller.pays(16) is None  # each batch size is judged by itself


def test_auto_gives_the_same_tokens_while_it_switches() -> None:
    class Fickle(DraftController):
        PROBE, PERIOD = 3, 7

    for agreement in (0.0, 1.0):
        model = FakeModel(num_mtp=1, agreement=agreement)
        engine = Engine(model, None, EngineConfig(speculative="auto", max_sequences=3))
        engine._controller = Fickle("auto")
        requests = [Request(str(i), prompt(10 + 30 * i, i), params(i, 120)) for i in range(7)]
        outputs = run(engine, requests)
        for request in requests:
            assert outputs[request.id].ids == solo(FakeModel(), request.prompt, request.params)
        assert model.mtp_mismatches == 0
