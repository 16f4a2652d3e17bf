"""Rollouts: the sampler's probabilities are the trainer's, and a group shares its prompt."""

from __future__ import annotations

import pytest
import torch

from ingle.engine.request import SamplingParams
from ingle.models import build_model
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.presets import model_preset
from ingle.training.reinforcement.objectives import objective_preset
from ingle.training.reinforcement.policy import Lesson, Policy, pack_lessons
from ingle.training.reinforcement.rollout import Completion, Sampler, read_reply

PROMPTS = [list(range(3, 40)), list(range(50, 150)), [7, 8]]
SEEDS = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
EOS = (1,)


def model_of(seed: int = 2, preset: str = "nano"):
    model = build_model(model_preset(preset), seed=seed)
    with torch.no_grad():  # a fresh model is almost uniform: make it choose
        model.lm_head.weight.mul_(12)
    return model


def sampled(sampler: Sampler, params: SamplingParams) -> list[list[Completion]]:
    return sampler.sample(PROMPTS, SEEDS, params)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=0.7),
        SamplingParams(temperature=1.3, top_p=0.8),
        SamplingParams(temperature=1.0, top_k=20, min_p=0.01),
    ],
)
@pytest.mark.parametrize("preset", ["nano", "tiny"])
def test_sampler_and_trainer_agree_on_every_token(preset: str, params: SamplingParams) -> None:
    model = model_of(preset=preset).train()
    found_P_G = sampled(Sampler(model, 9, 40, 128, EOS), params)
    policy = Policy(objective_preset("v32"), params.temperature, 512)
    compared = 0
    for prompt, group in zip(PROMPTS, found_P_G, strict=True):
        for one in group:
            filtered = any(one.kept)
            lesson = Lesson(prompt, one.tokens, one.logprobs, 1.0, 1.0,
                            kept=one.kept if filtered else None)  # fmt: skip
            batch = policy.batches(pack_lessons([lesson], 8, 1, 2)[0])[0]
            logp_TV = policy.logits(model, batch).log_softmax(-1)
            rows = slice(len(prompt) - 1, len(prompt) - 1 + len(one.tokens))
            logp_T = logp_TV[rows].gather(-1, torch.tensor(one.tokens)[:, None])[:, 0]
            assert torch.allclose(logp_T, torch.tensor(one.logprobs), atol=1e-5)
            compared += len(one.tokens)
    assert compared > 200


def test_a_group_computes_its_prompt_once_and_samples_as_if_it_had_not() -> None:
    model = model_of()
    sampler = Sampler(model, 9, 40, 128, EOS)
    together = sampled(sampler, SamplingParams())
    stats = sampler.engine.stats()
    assert stats.prompt_tokens == 3 * sum(map(len, PROMPTS))
    # all but the last token of a prompt, which says what follows, for all but the first of a group
    assert stats.cached_tokens == 2 * sum(len(prompt) - 1 for prompt in PROMPTS)
    alone = Sampler(model, 1, 40, 128, EOS)
    for prompt, seeds, group in zip(PROMPTS, SEEDS, together, strict=True):
        for seed, one in zip(seeds, group, strict=True):
            ((other,),) = alone.sample([prompt], [[seed]], SamplingParams())
            assert other == one
    assert len({tuple(one.tokens) for group in together for one in group}) == 9


def test_new_weights_are_sampled_from_at_once() -> None:
    model = model_of()
    sampler = Sampler(model, 9, 40, 128, EOS)
    before = sampled(sampler, SamplingParams())
    assert sampled(sampler, SamplingParams()) == before
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    after = sampled(sampler, SamplingParams())
    assert after != before
    assert after == sampled(Sampler(model, 9, 40, 128, EOS), SamplingParams())


def test_a_completion_knows_whether_it_ended_by_itself() -> None:
    model = model_of()
    with torch.no_grad():
        model.lm_head.weight[1] = 0.0
    cut = Sampler(model, 9, 5, 128, EOS).sample(PROMPTS, SEEDS, SamplingParams(top_k=1))
    assert {len(one.tokens) for group in cut for one in group} == {5}
    assert not any(one.whole for group in cut for one in group)
    first = cut[0][0].tokens[0]
    ended = Sampler(model, 9, 5, 128, (first,)).sample(
        PROMPTS[:1], [[1, 2]], SamplingParams(top_k=1)
    )
    assert [one.whole for one in ended[0]] == [True, True]
    assert ended[0][0].tokens == [first]


def test_a_reply_is_read_at_the_end_of_its_thought(tokenizer: Tokenizer) -> None:
    close = tokenizer.special("</think>")
    ids = [*tokenizer.encode("4+4=8\n"), close, *tokenizer.encode("\n\n8"), tokenizer.eos_id]
    reply = read_reply(ids, tokenizer)
    assert (reply.reasoning, reply.answer) == ("4+4=8\n", "\n\n8")
    assert read_reply(ids[:3], tokenizer).answer is None
