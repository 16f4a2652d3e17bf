"""Which experts every token chose: recorded beside the latents, whoever computed them."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from ingle.engine.config import EngineConfig
from ingle.engine.engine import Engine
from ingle.engine.request import Request, SamplingParams
from ingle.errors import ConfigError
from ingle.kernels import cpu
from ingle.models import CausalLM, build_model
from ingle.models.llama import LlamaConfig
from ingle.training.presets import model_preset
from ingle.training.reinforcement.routing import routes_of
from tests.engine.drive import Done, run

VOCAB = 512


@pytest.fixture(scope="module", params=["one call", "loop over layers"])
def model(request: pytest.FixtureRequest) -> CausalLM:
    if request.param == "one call" and not cpu.available():
        pytest.skip(cpu.unavailable_reason())
    config = replace(model_preset("nano"), initializer_range=0.2)
    made = build_model(config, seed=4).eval().requires_grad_(False)
    if request.param == "loop over layers":
        made._decoders = (None, None)
    for layer in made.model.layers:
        if hasattr(layer.mlp, "gate"):  # a bias that changes choices
            layer.mlp.gate.e_score_correction_bias.normal_(0.0, 0.1)
    return made


def requests() -> list[Request]:
    """Two groups of one prompt each, longer and shorter than a page, and others."""
    rng = random.Random(3)
    prompts = [[rng.randrange(VOCAB) for _ in range(length)] for length in (150, 40, 3, 64, 65)]
    prompts += [prompts[0], prompts[1], prompts[0][:70] + prompts[2]]
    params = SamplingParams(temperature=1.0, max_tokens=90)
    return [Request(str(i), p, replace(params, seed=i)) for i, p in enumerate(prompts)]


def recorded(model: CausalLM, **config: object) -> tuple[Engine, dict[str, Done]]:
    """Every answer as long as it may be: what a processor's rounding draws must not end one."""
    engine = Engine(model, None, EngineConfig(record_routes=True, eos_ids=(), **config))  # type: ignore[arg-type]
    return engine, run(engine, requests())


def assert_own(model: CausalLM, done: dict[str, Done]) -> None:
    """Every record is what the whole sequence chooses when it is computed by itself."""
    for request in requests():
        last = done[request.id].last
        assert last is not None and last.routes is not None
        tokens = (request.prompt + done[request.id].ids)[:-1]
        own_MTK = routes_of(model, torch.tensor(tokens)).sort(-1).values
        assert last.routes.dtype == np.uint8
        found_TMK = torch.from_numpy(last.routes.astype(np.int32))
        assert torch.equal(found_TMK.sort(-1).values.transpose(0, 1), own_MTK)


@pytest.mark.parametrize(
    "config",
    [
        {"speculative": "off", "prefix_cache": False},
        {"speculative": "off", "share_tails": True},
        {"speculative": "on", "draft_length": 3},
        {"speculative": "off", "token_budget": 32, "max_sequences": 3},
        {"speculative": "on", "pages": 7, "max_sequences": 8},
    ],
    ids=["plain", "shared", "drafts", "chunks", "pre-empted"],
)
def test_a_record_is_what_the_sequence_chooses_alone(
    model: CausalLM, config: dict[str, object]
) -> None:
    engine, done = recorded(model, **config)
    assert_own(model, done)
    stats = engine.stats()
    assert (stats.cached_tokens > 0) == config.get("prefix_cache", True)
    assert (stats.preemptions > 0) == ("pages" in config)
    assert bool(sum(stats.drafted)) == (config["speculative"] == "on")


def test_pages_that_are_found_again_bring_their_routes(model: CausalLM) -> None:
    engine, first = recorded(model, speculative="off")
    cached = engine.stats().cached_tokens
    second = run(engine, requests())
    assert engine.stats().cached_tokens > cached + 128
    for request in requests():
        one, other = first[request.id].last, second[request.id].last
        assert one is not None and other is not None
        assert one.routes is not None and other.routes is not None
        assert np.array_equal(one.routes, other.routes)


def test_recording_changes_no_token_and_is_off_by_default(model: CausalLM) -> None:
    plain = run(Engine(model, None, EngineConfig(eos_ids=())), requests())
    _, done = recorded(model)
    assert {key: one.ids for key, one in plain.items()} == {k: one.ids for k, one in done.items()}
    assert all(one.last is not None and one.last.routes is None for one in plain.values())


def test_a_model_without_experts_has_nothing_to_record() -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="record_routes needs a mixture"):
        Engine(build_model(config, 1), None, EngineConfig(record_routes=True))
