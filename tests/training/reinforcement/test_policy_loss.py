"""Rollouts as batches: packing changes no loss, nor does who computes it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ingle.models import build_model
from ingle.models.causal_lm import CausalLM
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.opening import write_tokenizer
from ingle.training.presets import model_preset
from ingle.training.reinforcement.objectives import advantages, objective_preset, token_weights
from ingle.training.reinforcement.policy import PARTS, Lesson, Policy, pack_lessons
from ingle.training.streams import Streams

VOCAB = 512
PRESETS = ("grpo", "dr_grpo", "dapo", "gspo", "cispo", "v32", "small")


def lessons(name: str, seed: int = 0, groups: int = 3, size: int = 4) -> list[Lesson]:
    """Random rollouts whose old and reference log-probabilities are near those of a fresh model."""
    rng, objective = random.Random(seed), objective_preset(name)
    generator = torch.Generator().manual_seed(seed)
    rewards_PG = torch.rand(groups, size, generator=generator)
    values_PG = advantages(rewards_PG, objective.scale)
    lengths = [[rng.randint(1, 40) for _ in range(size)] for _ in range(groups)]
    flat = [n for some in lengths for n in some]
    weights = iter(token_weights(flat, objective.average, 40))
    found = []
    for group in range(groups):
        prompt = [rng.randrange(VOCAB) for _ in range(rng.randint(3, 20))]
        for index, length in enumerate(lengths[group]):
            near = (-6.2 + 0.6 * torch.randn(2, length, generator=generator)).tolist()
            kept = [tuple({t, *rng.sample(range(VOCAB), 30)}) for t in range(length)]
            found.append(Lesson(
                prompt, list(range(length)), near[0], float(values_PG[group, index]),
                next(weights), near[1], kept if objective.keep_sampling else None,
            ))  # fmt: skip
    return found


@pytest.fixture(scope="module")
def model() -> CausalLM:
    return build_model(model_preset("nano"), seed=3, kernels="reference").train()


def gradient(model: CausalLM, policy: Policy, jobs: list) -> tuple[list[float], torch.Tensor]:
    """Parts and the whole gradient of a step, one batch after the other."""
    model.zero_grad()
    batches = [batch for job in jobs for batch in policy.batches(job)]
    counts = torch.stack([policy.counts(batch) for batch in batches]).sum(0)
    parts = torch.zeros(len(PARTS))
    for batch in batches:
        loss, some = policy.loss(model, batch, counts)
        loss.backward()
        parts += some
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return parts.tolist(), torch.cat(grads)


@pytest.mark.parametrize("name", PRESETS)
def test_neither_packing_nor_order_changes_loss_or_gradient(model: CausalLM, name: str) -> None:
    policy = Policy(objective_preset(name), 0.8, VOCAB)
    some = lessons(name)
    parts, whole = gradient(model, policy, pack_lessons(some, 2048, 1, 2))
    assert whole.abs().max() > 1e-6
    shuffled = random.Random(9).sample(some, len(some))
    for cut in (
        pack_lessons(shuffled, 2048, 1, 2),
        pack_lessons(some, 64, 2, 2),
        pack_lessons(shuffled, 100, 3, 2),
        [pack_lessons([one], 1, 1, 2)[0] for one in shuffled],
    ):
        others, found = gradient(model, policy, cut)
        assert others == pytest.approx(parts, abs=1e-6, rel=1e-5)
        assert (found - whole).abs().max() <= 1e-6 * max(1.0, float(whole.abs().max()))


@pytest.mark.slow
def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    from ingle.training.data import Mixture
    from ingle.training.loop import Run

    run = Run("t", model_preset("nano"), Mixture({"sums": 1.0}, chat=True), steps=1)
    write_tokenizer(run, tmp_path)
    policy = Policy(objective_preset("v32"), 1.0, VOCAB)
    jobs = pack_lessons(lessons("v32"), 128, 2, 2)
    assert all(len(job) > 1 for job in jobs)
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for processes in (1, 2):
        model = build_model(model_preset("nano"), seed=3, kernels="reference").train()
        with Streams(model, policy, 2, tmp_path, False, processes) as streams:
            parts = streams.gradient(jobs).parts
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        found.append((parts, torch.cat([g.flatten() for g in grads])))
    torch.set_num_threads(threads)
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


def test_the_loss_is_the_formula_on_one_rollout(model: CausalLM) -> None:
    """Against a plain computation without packing: dr_grpo, one rollout, in double precision."""
    objective = objective_preset("dr_grpo")
    lesson = replace(lessons("dr_grpo")[0], tokens=[7, 9, 11], logprobs=[-6.0, -6.5, -5.5],
                     advantage=0.7, weight=0.01, reference=None)  # fmt: skip
    policy = Policy(objective, 1.0, VOCAB)
    parts, _ = gradient(model, policy, pack_lessons([lesson], 64, 1, 2))
    tokens = torch.tensor([lesson.prompt + lesson.tokens])
    logp = model(tokens)[0].double().log_softmax(-1)
    start = len(lesson.prompt) - 1
    expected = 0.0
    for place, (token, old) in enumerate(zip(lesson.tokens, lesson.logprobs, strict=True)):
        ratio = float((logp[start + place, token] - old).exp())
        bounded = min(max(ratio, 0.8), 1.2)
        expected += -min(ratio * 0.7, bounded * 0.7) * 0.01
    assert parts[0] == pytest.approx(expected, rel=1e-5)


def test_every_token_is_trained_once_and_padding_never() -> None:
    some = lessons("grpo")
    jobs = pack_lessons(some, 64, 2, 2)
    policy = Policy(objective_preset("grpo"), 1.0, VOCAB)
    batches = [batch for job in jobs for batch in policy.batches(job)]
    assert sum(int(policy.counts(b)[0]) for b in batches) == sum(len(x.tokens) for x in some)
    for batch in batches:
        idle_T = batch.targets_T == -100
        assert (batch.weight_T[idle_T] == 0).all()
        assert (batch.sequence_T[idle_T] == len(batch.tokens_T)).all()
        assert (batch.starts_T <= torch.arange(len(batch.tokens_T))).all()
    assert len(jobs[0]) == len(jobs[1])
    assert pack_lessons([], 64, 2, 2)[1][0]["targets_T"].max() == -100


def test_what_the_filters_left_out_has_no_probability(
    model: CausalLM, tokenizer: Tokenizer
) -> None:
    lesson = Lesson([5, 6], [7, 8], [-1.0, -1.0], 1.0, 0.5, None, [(7, 9), (8,)])
    policy = Policy(objective_preset("v32"), 1.0, VOCAB)
    batch = policy.batches(pack_lessons([lesson], 8, 1, 2)[0])[0]
    probabilities_TV = policy.logits(model, batch).softmax(-1).detach()
    assert float(probabilities_TV[1, [7, 9]].sum()) == pytest.approx(1.0)
    assert probabilities_TV[2, 8] == 1.0
    assert (probabilities_TV[0] > 0).all()  # nothing was sampled there
