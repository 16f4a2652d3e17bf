"""Sampler and trainer on routing: one choice in fp32, a replayed one where they would differ."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo.config as dynamo_config
from test_grpo import any_ending, logged, parent, same, short, weights  # noqa: F401

from ingle.engine.request import SamplingParams
from ingle.errors import ConfigError
from ingle.kernels.quantized import Kind
from ingle.models import build_model, load_model
from ingle.models.causal_lm import CausalLM
from ingle.models.llama import LlamaConfig
from ingle.training.opening import can_compile
from ingle.training.presets import model_preset
from ingle.training.reinforcement.grpo import train_grpo
from ingle.training.reinforcement.objectives import objective_preset
from ingle.training.reinforcement.policy import PARTS, Lesson, Policy, pack_lessons
from ingle.training.reinforcement.rollout import Sampler
from ingle.training.reinforcement.routing import routes_of, routing_disagreement
from ingle.training.streams import Streams

VOCAB, DRIFT = 512, PARTS.index("drift")


def model_of(seed: int, preset: str = "nano", **changed: int) -> CausalLM:
    model = build_model(replace(model_preset(preset), **changed), seed=seed).train()
    with torch.no_grad():  # a fresh model is almost uniform: make it choose
        model.lm_head.weight.mul_(12)
        for layer in model.model.layers:
            if hasattr(layer.mlp, "gate"):
                bias_E = layer.mlp.gate.e_score_correction_bias
                bias_E.normal_(0.0, 0.02, generator=torch.Generator().manual_seed(seed))
    return model


def prompts_of(seed: int, lengths: Sequence[int]) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(3, VOCAB) for _ in range(length)] for length in lengths]


def sampled(
    model: CausalLM, quant: Kind | None, prompts: list[list[int]], group: int = 4, limit: int = 40
) -> list[Lesson]:
    """Rollouts as the trainer sees them, with the sampler's log-probabilities and routes."""
    sampler = Sampler(model, 32, limit, 160, (1,), quant, record_routes=True)
    seeds = [[100 * p + g for g in range(group)] for p in range(len(prompts))]
    found = sampler.sample(prompts, seeds, SamplingParams())
    return [
        Lesson(prompt, one.tokens, one.logprobs, (-1.0) ** i, 0.01, routes=one.routes)
        for prompt, some in zip(prompts, found, strict=True)
        for i, one in enumerate(some)
    ]


def policy_of(model: CausalLM, replays: bool, name: str = "small") -> Policy:
    shape = model.config.routes_shape if replays else None
    return Policy(objective_preset(name), 1.0, VOCAB, shape)


def gradient(
    model: CausalLM, policy: Policy, lessons: list[Lesson]
) -> tuple[torch.Tensor, torch.Tensor]:
    model.zero_grad()
    batches = [b for job in pack_lessons(lessons, 512, 1, 2) for b in policy.batches(job)]
    counts = torch.stack([policy.counts(batch) for batch in batches]).sum(0)
    parts = torch.zeros(len(PARTS))
    for batch in batches:
        loss, some = policy.loss(model, batch, counts)
        loss.backward()
        parts += some
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return parts, torch.cat(grads)


@torch.no_grad()
def drift(model: CausalLM, lessons: list[Lesson], replays: bool) -> float:
    """Mean |log-probability of the trainer - of the sampler|."""
    policy = policy_of(model, replays)
    batches = [b for job in pack_lessons(lessons, 2048, 1, 2) for b in policy.batches(job)]
    counts = torch.stack([policy.counts(batch) for batch in batches]).sum(0)
    return float(sum(policy.loss(model, batch, counts)[1][DRIFT] for batch in batches))


@pytest.mark.parametrize("preset", ["nano", "tiny"])
def test_in_fp32_the_trainer_chooses_what_the_sampler_chose(preset: str) -> None:
    """Also for prompts that a group shares, by whole pages and by the rest of one."""
    model = model_of(2, preset)
    lessons = sampled(model, None, prompts_of(1, (130, 37, 2)), group=3)
    compared = 0
    for lesson in lessons:
        assert lesson.routes is not None
        tokens = torch.tensor(lesson.prompt + lesson.tokens)[:-1]
        own_TMK = routes_of(model, tokens).transpose(0, 1)
        assert lesson.routes.shape == (len(tokens), *model.config.routes_shape)
        assert np.array_equal(np.sort(lesson.routes), np.sort(own_TMK.numpy()))
        compared += own_TMK[..., 0].numel()
    assert compared > 800
    assert routing_disagreement(model, policy_of(model, True), lessons) == 0.0


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_with_replay_a_quantised_sampler_is_nearer(kind: Kind) -> None:
    for seed in range(4):
        model = model_of(seed)
        lessons = sampled(model, kind, prompts_of(seed, [20] * 8))
        assert routing_disagreement(model, policy_of(model, True), lessons) > 0.001
        without, replayed = drift(model, lessons, False), drift(model, lessons, True)
        assert 0.001 < replayed < without, seed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_on_the_shipped_reasoner_too(kind: Kind) -> None:
    """On text it is unsure of: on its own tasks nearly every token is certain, routed how it may
    be, and the two are equal within noise (docs/log.md)."""
    model = load_model(None, torch.float32).train()
    lessons = sampled(model, kind, prompts_of(7, [20] * 24), limit=64)
    without, replayed = drift(model, lessons, False), drift(model, lessons, True)
    assert routing_disagreement(model, policy_of(model, True), lessons) > 0.001
    assert replayed < 0.9 * without


def test_packing_keeps_every_token_its_routes() -> None:
    model = model_of(5)
    lessons = sampled(model, "int4", prompts_of(3, (9, 30, 3)))
    expected = {tuple(lesson.prompt + lesson.tokens): lesson.routes for lesson in lessons}
    policy, seen = policy_of(model, True), 0
    for job in pack_lessons(random.Random(1).sample(lessons, len(lessons)), 200, 2, 2):
        for batch in policy.batches(job):
            assert batch.routes_MTK is not None and batch.routes_MTK.dtype is torch.int32
            free_T = torch.ones(len(batch.tokens_T), dtype=torch.bool)
            starts = [int(s) for s in batch.starts_T.unique() if (batch.starts_T == s).sum() > 1]
            for start in starts:
                end = start + int((batch.starts_T == start).sum())
                routes = expected[tuple(batch.tokens_T[start:end].tolist())]
                assert routes is not None
                mine_TMK = batch.routes_MTK[:, start : end - 1].transpose(0, 1)
                assert np.array_equal(mine_TMK.numpy(), routes)
                free_T[start : end - 1] = False
                seen += 1
            assert (batch.routes_MTK[:, free_T] == -1).all()
    assert seen == len(lessons)
    empty = policy.batches(pack_lessons([], 64, 1, 2)[0])[0]
    assert empty.routes_MTK is not None and (empty.routes_MTK == -1).all()


@pytest.mark.parametrize("name", ["v32", "small", "gspo"])
def test_replaying_its_own_choice_changes_neither_loss_nor_gradient(name: str) -> None:
    model = model_of(6)
    lessons = sampled(model, None, prompts_of(4, (12, 25)))
    lessons = [replace(lesson, reference=lesson.logprobs) for lesson in lessons]
    parts, free = gradient(model, policy_of(model, False, name), lessons)
    replayed_parts, replayed = gradient(model, policy_of(model, True, name), lessons)
    assert free.abs().max() > 1e-3
    assert (replayed - free).abs().max() <= 1e-6 * max(1.0, float(free.abs().max()))
    assert torch.allclose(replayed_parts, parts, atol=1e-6)


def test_forced_experts_are_weighed_by_the_trainers_router() -> None:
    """Against the formula: w_e = s_e / sum of s over the experts that were forced, and gradient
    through those scores."""
    model = model_of(7)
    moe = model.model.layers[-2].mlp  # the last one is the MTP module
    c = model.config
    x_ND = torch.randn(5, c.hidden_size)
    own_NK, _ = moe.gate(x_ND)
    forced_NK = torch.randint(c.n_routed_experts - 1, own_NK.shape, dtype=torch.int32)
    forced_NK[:, 1] = (forced_NK[:, 0] + 1) % c.n_routed_experts
    forced_NK[3] = -1  # left to the router
    ids_NK, weights_NK = moe.gate(x_ND, forced_NK)
    assert torch.equal(ids_NK[3], own_NK[3]) and not torch.equal(ids_NK[:3], own_NK[:3])
    rows = [0, 1, 2, 4]
    assert torch.equal(ids_NK[rows], forced_NK[rows])
    scores_NE = (x_ND @ moe.gate.weight.T).sigmoid()
    chosen_NK = scores_NE.gather(1, ids_NK.long())
    expected_NK = chosen_NK / chosen_NK.sum(1, keepdim=True) * c.routed_scaling_factor
    assert torch.allclose(weights_NK, expected_NK, atol=1e-6)
    coefficients = torch.randn_like(weights_NK)
    (mine,) = torch.autograd.grad((weights_NK * coefficients).sum(), moe.gate.weight)
    (theirs,) = torch.autograd.grad((expected_NK * coefficients).sum(), moe.gate.weight)
    assert mine.abs().max() > 0 and torch.allclose(mine, theirs, atol=1e-6)


def test_disagreement_is_the_share_of_choices_that_differ() -> None:
    model = model_of(8)
    (lesson,) = sampled(model, None, prompts_of(5, (30,)), group=1, limit=11)
    assert lesson.routes is not None
    routes = lesson.routes[..., ::-1].copy()  # another order is no other choice
    changed = [(2, 0), (9, 1), (9, 0), (33, 1)]
    for token, layer in changed:
        free = set(range(model.config.n_routed_experts)) - set(routes[token, layer].tolist())
        routes[token, layer, 0] = min(free)
    found = routing_disagreement(model, policy_of(model, True), [replace(lesson, routes=routes)])
    assert found == pytest.approx(len(changed) / routes[..., 0].size)
    assert model.training and not any(
        layer.mlp.load_E.any() for layer in model.model.layers if hasattr(layer.mlp, "load_E")
    )


@pytest.mark.slow
def test_two_processes_replay_as_one(parent: Path) -> None:  # noqa: F811
    model = model_of(9)
    policy = policy_of(model, True)
    lessons = sampled(model, "int4", prompts_of(6, (12, 25, 7)))
    jobs = pack_lessons(lessons, 128, 2, 2)
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for processes in (1, 2):
        model = model_of(9)
        with Streams(model, policy, 2, parent, False, processes) as streams:
            parts = streams.gradient(jobs).parts
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((parts, torch.cat(grads)))
    torch.set_num_threads(threads)
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(), reason="torch.compile needs a C++ compiler")
def test_compiled_once_for_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(9, num_hidden_layers=2)
    policy = policy_of(model, True)
    lessons = sampled(model, "int8", prompts_of(6, (12, 25, 7)))
    batches = policy.batches(pack_lessons(lessons, 256, 1, 2)[0])
    batches += policy.batches(pack_lessons([], 256, 1, 2)[0])
    counts = policy.counts(batches[0])
    compiled = torch.compile(policy.loss, dynamic=False)
    assert len(batches) > 2
    for index, batch in enumerate(batches):
        found = []
        for loss_of in (policy.loss, compiled):
            model.zero_grad()
            loss, parts = loss_of(model, batch, counts)
            loss.backward()
            grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
            found.append((parts, torch.cat(grads)))
        assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
        assert torch.allclose(found[0][1], found[1][1], atol=1e-5)
        if index == 0:
            monkeypatch.setattr(dynamo_config, "error_on_recompile", True)
        routing_disagreement(model, policy, lessons[:2])  # between two steps: leaves no trace


@pytest.mark.parametrize(("name", "quant"), [("small", "int8"), ("v32", "int4"), ("v32", "")])
def test_a_resumed_run_of_a_quantised_sampler_equals_an_uninterrupted_one(
    parent: Path, tmp_path: Path, any_ending: None, name: str, quant: str  # noqa: F811
) -> None:  # fmt: skip
    run = short(parent, name, quant=quant)
    train_grpo(run, tmp_path / "whole", compiled=False, processes=1)
    train_grpo(run, tmp_path / "parts", compiled=False, processes=1, stop_after=3)
    train_grpo(run, tmp_path / "parts", compiled=False, processes=1)
    same(tmp_path / "whole", tmp_path / "parts")
    start = weights(parent)
    assert any(not torch.equal(start[k], v) for k, v in weights(tmp_path / "whole").items())
    entries = [entry for entry in logged(tmp_path / "whole") if "drift" in entry]
    assert len(entries) >= 2
    for entry in entries:
        assert (entry["drift"] > 1e-5) == bool(quant)
        assert entry["routing_disagreement"] >= 0.0
        if not quant:
            assert entry["routing_disagreement"] == 0.0


def test_only_a_run_that_replays_says_how_often_routes_differ(
    parent: Path, tmp_path: Path, any_ending: None  # noqa: F811
) -> None:  # fmt: skip
    train_grpo(short(parent, steps=1), tmp_path, compiled=False, processes=1)
    (entry,) = logged(tmp_path)
    assert "drift" in entry and "routing_disagreement" not in entry


def test_which_runs_replay(parent: Path) -> None:  # noqa: F811
    shape = model_preset("nano").routes_shape
    assert short(parent, "v32").routes == shape
    assert short(parent, "small").routes is None
    assert short(parent, "small", quant="int8").routes == shape
    dense = LlamaConfig(
        vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    assert short(parent, "v32", model=dense, quant="int8").routes is None
    with pytest.raises(ConfigError, match="quant must be one of int8, int4, fp8"):
        short(parent, quant="int3")
