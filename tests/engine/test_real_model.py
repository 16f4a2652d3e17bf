"""The engine's promises on a small random deepseek_v3, on every kernel tier that is there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import torch

from ingle.engine.config import EngineConfig
from ingle.engine.engine import Engine
from ingle.engine.request import Request, SamplingParams
from ingle.kernels import cpu
from ingle.models import CausalLM, DeepseekV3Config, build_model
from ingle.models.batch import PAGE_TOKENS, StepBatch
from tests.engine.drive import Done, run

VOCAB = 97
CONFIG = DeepseekV3Config(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    moe_intermediate_size=16,
    num_hidden_layers=3,
    num_attention_heads=4,
    n_routed_experts=8,
    num_experts_per_tok=2,
    kv_lora_rank=16,
    qk_nope_head_dim=8,
    qk_rope_head_dim=8,
    v_head_dim=8,
    n_group=2,
    topk_group=1,
    num_nextn_predict_layers=1,
    max_position_embeddings=512,
    initializer_range=0.25,
    eos_token_id=None,
)


@pytest.fixture(scope="module", params=["reference", "cpu"])
def model(request: pytest.FixtureRequest) -> Iterator[CausalLM]:
    if request.param == "cpu" and not cpu.available():
        pytest.skip(cpu.unavailable_reason())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield build_model(CONFIG, seed=1, kernels=request.param).eval().requires_grad_(False)
    torch.set_num_threads(threads)


def bitwise(model: CausalLM) -> bool:
    return bool(model.kernels.name == "cpu")


def prompt(length: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = torch.randint(0, VOCAB, (length,), generator=generator).tolist()
    return ids


def requests(count: int, max_tokens: int = 40) -> list[Request]:
    """Greedy and sampled ones of many lengths, all with log-probabilities."""
    return [
        Request(
            str(i),
            prompt(3 + 29 * i, i),
            SamplingParams(
                max_tokens=max_tokens,
                temperature=0.0 if i % 3 == 0 else 0.8,
                top_p=0.95 if i % 2 else 1.0,
                seed=i,
                logprobs=1,
            ),
        )
        for i in range(count)
    ]


def assert_same(model: CausalLM, a: Done, b: Done) -> None:
    """Equal tokens; equal log-probabilities too, to the bit where the kernels promise it."""
    assert a.ids == b.ids and len(a.ids) > 0
    for one, two in zip(a.tokens, b.tokens, strict=True):
        if bitwise(model):
            assert one == two
        else:
            assert one.logprob == pytest.approx(two.logprob, abs=1e-4)


@cache
def alone(model: CausalLM, index: int, max_tokens: int = 40) -> Done:
    config = EngineConfig(speculative="off", prefix_cache=False)
    request = requests(index + 1, max_tokens)[index]
    return run(Engine(model, None, config), [request])[request.id]


def test_prefill_equals_prefill_plus_decode_for_every_split(model: CausalLM) -> None:
    length = 70
    ids, pages = prompt(length, 0), [3, 1]
    cache = torch.zeros(model.cache_shape(4))
    whole = model.step(StepBatch.build([(ids, 0, pages)]), cache)
    naive = model.hidden(torch.tensor([ids]))[0]
    torch.testing.assert_close(whole, naive, rtol=1e-3, atol=1e-4)
    latents = cache.clone()
    for split in range(1, length, 1 if bitwise(model) else 13):
        cache = torch.full(model.cache_shape(4), 7.0)
        rows = [model.step(StepBatch.build([(ids[:split], 0, pages)]), cache)]
        for i in range(split, length):
            rows.append(model.step(StepBatch.build([(ids[i : i + 1], i, pages)]), cache))
        rows_ND, own = torch.cat(rows), cache[:, pages].flatten(1, 2)[:, :length]
        expected = latents[:, pages].flatten(1, 2)[:, :length]
        if bitwise(model):
            assert torch.equal(rows_ND, whole) and torch.equal(own, expected)
        else:
            torch.testing.assert_close(rows_ND, whole, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-4)


def test_greedy_decoding_is_the_naive_paths_argmax(model: CausalLM) -> None:
    request = requests(4)[3]
    ids = alone(model, 3).ids
    logits = model(torch.tensor([request.prompt + ids]))[0]
    assert logits[len(request.prompt) - 1 : -1].argmax(-1).tolist() == ids


def test_alone_equals_in_a_full_batch_with_strangers(model: CausalLM) -> None:
    config = EngineConfig(max_sequences=6, token_budget=90, speculative="off")
    outputs = run(Engine(model, None, config), requests(9))
    for index in range(9):
        assert_same(model, outputs[str(index)], alone(model, index))


def test_cache_hit_equals_miss(model: CausalLM) -> None:
    engine = Engine(model, None, EngineConfig(speculative="on"))
    for again in (False, True):
        outputs = run(engine, requests(6))
        for index, request in enumerate(requests(6)):
            done = outputs[request.id]
            full = (len(request.prompt) - 1) // PAGE_TOKENS * PAGE_TOKENS
            assert done.last and done.last.cached_tokens == (full if again else 0)
            assert_same(model, done, alone(model, index))


@pytest.mark.parametrize("length", [1, 3])
def test_speculative_equals_plain(model: CausalLM, length: int) -> None:
    config = EngineConfig(speculative="on", draft_length=length, max_sequences=5)
    engine = Engine(model, None, config)
    outputs = run(engine, requests(7))
    assert engine.stats().drafted[0] > 150
    for index in range(7):
        assert_same(model, outputs[str(index)], alone(model, index))


def test_preemption_changes_nothing(model: CausalLM) -> None:
    engine = Engine(model, None, EngineConfig(pages=8, max_sequences=5, speculative="on"))
    outputs = run(engine, requests(4, max_tokens=150))
    assert engine.stats().preemptions > 0
    for index in range(4):
        assert_same(model, outputs[str(index)], alone(model, index, 150))


def test_the_cache_takes_the_bytes_of_the_formula(model: CausalLM) -> None:
    engine = Engine(model, None, EngineConfig(pages=9))
    c = CONFIG
    expected = c.num_hidden_layers * (c.kv_lora_rank + c.qk_rope_head_dim) * 4
    cache = engine._cache
    assert engine.stats().bytes_per_token == expected
    assert cache.latents_LPGC.untyped_storage().nbytes() == 9 * PAGE_TOKENS * expected
    assert cache.mtp_PGC is not None
    mtp = (c.kv_lora_rank + c.qk_rope_head_dim) * 4
    assert cache.mtp_PGC.untyped_storage().nbytes() == 9 * PAGE_TOKENS * mtp


def test_drafts_are_those_of_the_mtp_module_over_whole_sequences(
    model: CausalLM,
) -> None:
    """The drafts that the engine verifies, recomputed by the module's reference path."""
    engine = Engine(model, None, EngineConfig(speculative="on"))
    request = Request("a", prompt(80, 3), SamplingParams(max_tokens=40, temperature=0.0))
    engine.submit(request)
    drafts: list[tuple[int, int]] = []  # (position, token)
    generated: list[int] = []
    while engine.has_work:
        for event in engine.step():
            generated += [token.id for token in event.tokens]
        for sequence in engine._scheduler.running:
            drafts += [(len(sequence.tokens), token) for token in sequence.drafts]
    tokens = torch.tensor([request.prompt + generated])
    hidden = model.hidden(tokens)[:, :-1]
    best = model.mtp_logits(model.mtp_hidden(hidden, tokens[:, 1:]))[0].argmax(-1).tolist()
    assert len(drafts) > 30
    for position, token in drafts:
        assert best[position - 2] == token
