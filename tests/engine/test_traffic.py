"""What a step reads from memory: as counted tensor by tensor, and as it grows with rows."""

from __future__ import annotations

import pytest

from ingle.engine.engine import Engine
from ingle.engine.llm import LLM
from ingle.engine.request import Request, SamplingParams
from ingle.engine.traffic import Traffic


@pytest.mark.parametrize(("quant", "bits"), [("fp32", 32.0), ("bf16", 16.0), ("int8", 8.25)])
def test_traffic_of_the_shipped_reasoner(quant: str, bits: float) -> None:
    llm = LLM(quant=quant)
    traffic, config = Traffic.of(llm.model, 7), llm.model.config
    per_layer = 3 * config.hidden_size * config.moe_intermediate_size * config.n_routed_experts
    layers = config.num_hidden_layers - config.first_k_dense_replace
    assert traffic.experts == pytest.approx(per_layer * layers * bits / 8, rel=0.04)
    one = traffic.step(1, 0)
    active = config.count_parameters(active=True)
    if not config.tie_word_embeddings:  # the table of inputs is read at one row
        active -= config.vocab_size * config.hidden_size
    assert one == pytest.approx(active * bits / 8, rel=0.25)  # norms and router stay in fp32
    assert traffic.step(1, 10) == one + 70
    assert one < traffic.step(2, 0) < traffic.step(8, 0) < traffic.fixed + traffic.experts
    assert traffic.step(10_000, 0) == pytest.approx(traffic.fixed + traffic.experts)


def test_the_engine_averages_over_its_steps() -> None:
    engine: Engine = LLM().engine
    assert engine.stats().step_bytes == 0
    engine.submit(Request("a", [5, 6, 7], SamplingParams(max_tokens=20, ignore_eos=True)))
    while engine.has_work:
        engine.step()
    found = engine.stats().step_bytes
    traffic = Traffic.of(engine.model, engine.stats().bytes_per_token)
    assert traffic.step(1, 0) <= found <= traffic.step(12, 40)


def test_what_is_no_model_reads_nothing() -> None:
    assert Traffic.of(object(), 7).step(3, 100) == 0
