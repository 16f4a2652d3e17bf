"""Sampling: exact distributions, exact filters, one row's result independent of the others."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ingle.engine.noise import exponential, random_bits, stream_key, token_offsets
from ingle.engine.request import SamplingParams
from ingle.engine.sampler import Row, Sample, Sampler, SamplingFailure, SamplingState, candidates


def state(prompt: tuple[int, ...] = (1,), seed: int = 0, **params: object) -> SamplingState:
    return SamplingState(SamplingParams(**params), prompt, seed)  # type: ignore[arg-type]


def logits(rows: int, vocab: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, vocab)).astype(np.float32) * 3


def tokens(samples: list[Sample | SamplingFailure]) -> list[int]:
    assert all(isinstance(s, Sample) for s in samples)
    return [s.token for s in samples if isinstance(s, Sample)]


def chi_square(counts: NDArray[np.int64], p: NDArray[np.float64]) -> float:
    """Standardised: about normal(0, 1) for many cells."""
    keep = p * counts.sum() > 5
    expected = p[keep] * counts.sum()
    x = ((counts[keep] - expected) ** 2 / expected).sum()
    cells = keep.sum() - 1
    return float((x - cells) / np.sqrt(2 * cells))


def test_noise_is_exponential_and_uncorrelated() -> None:
    keys = np.array([stream_key(s, p) for s in range(40) for p in range(40)], dtype=np.uint64)
    e = exponential(random_bits(keys[:, None], token_offsets(200)))
    assert e.min() > 0 and np.isfinite(e).all()
    assert abs(e.mean() - 1) < 0.01 and abs(e.var() - 1) < 0.03
    u = np.exp(-e)
    assert abs(np.histogram(u, 64, (0, 1))[0] / (u.size / 64) - 1).max() < 0.1
    u = u.reshape(40, 40, 200) - 0.5  # seed, position, token
    for axis in range(3):  # neighbouring seeds, positions, tokens: correlation within 5 sigma
        a, b = np.moveaxis(u, axis, 0)[:-1], np.moveaxis(u, axis, 0)[1:]
        assert abs((a * b).mean() * 12) < 5 / np.sqrt(a.size)
    assert len(np.unique(keys)) == keys.size


def test_seeds_of_any_size_and_sign_are_distinct() -> None:
    seeds = [0, 1, -1, 2**63, 2**64 - 2, 12345678901234567890]
    assert len({stream_key(s, 7) for s in seeds}) == len(seeds)


@pytest.mark.parametrize(
    "params", [{}, {"temperature": 0.6}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1, "top_p": 0.9}]
)
def test_tokens_come_with_their_exact_probability(params: dict[str, float]) -> None:
    vocab, draws = 40, 8_000
    row = logits(1, vocab, 3)[0] / 3
    p = np.exp(row.astype(np.float64) / params.get("temperature", 1.0))
    p = naive_filter(p / p.sum(), SamplingParams(**params))  # type: ignore[arg-type]
    sampler = Sampler(vocab)
    rows = [Row(state(seed=s, **params), 11) for s in range(draws)]
    drawn = tokens(sampler.sample(np.tile(row, (draws, 1)), rows))
    counts = np.bincount(drawn, minlength=vocab)
    assert counts[p == 0].sum() == 0
    assert abs(chi_square(counts, p)) < 5


def naive_filter(p: NDArray[np.float64], params: SamplingParams) -> NDArray[np.float64]:
    """Top-k, then top-p over the rest renormalised, then min-p, by a full sort."""
    order = np.argsort(-p, kind="stable")
    keep = order[: params.top_k] if params.top_k else order
    share = p[keep] / p[keep].sum()
    if params.top_p < 1:
        keep = keep[: int((np.cumsum(share) - share < params.top_p).sum())]
    keep = keep[p[keep] >= params.min_p * p.max()]
    out = np.zeros_like(p)
    out[keep] = p[keep] / p[keep].sum()
    return out


def test_filters_equal_a_full_sort() -> None:
    rng = np.random.default_rng(1)
    for trial in range(300):
        x = rng.standard_normal(int(rng.integers(2, 400))) * rng.uniform(0.1, 8)
        weights = np.exp(x - x.max()).astype(np.float32)
        params = SamplingParams(
            top_k=int(rng.choice([0, 1, 3, 50])),
            top_p=float(rng.choice([0.05, 0.5, 0.9, 0.999, 1.0])),
            min_p=float(rng.choice([0.0, 0.05, 0.5])),
        )
        expected = np.flatnonzero(naive_filter(weights.astype(np.float64) / weights.sum(), params))
        assert sorted(candidates(weights, params)) == sorted(expected), (trial, params)


def test_penalties_and_bias_by_hand() -> None:
    x = np.array([[2.0, -2.0, 1.0, 0.5, 0.0]], dtype=np.float32)
    s = state(
        prompt=(0, 1), presence_penalty=0.5, frequency_penalty=0.25, repetition_penalty=2.0,
        logit_bias={4: 3.0},
    )  # fmt: skip
    s.observe(2)
    s.observe(2)
    s.edit(x[0], [])
    assert x[0].tolist() == [1.0, -4.0, 0.5 - 0.5 - 0.5, 0.5, 3.0]
    y = np.array([2.0, -2.0, 1.0, 0.5, 0.0], dtype=np.float32)
    s.edit(y, [3])  # a draft counts as generated
    assert y.tolist() == [1.0, -4.0, -0.5, 0.25 - 0.75, 3.0]


def test_repetition_penalty_equals_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    x = logits(1, 50)
    ids = [3, 7, 7, 40]
    oracle = transformers.RepetitionPenaltyLogitsProcessor(1.3)
    expected = oracle(torch.tensor([ids]), torch.tensor(x))[0].numpy()
    s = state(prompt=(3, 7), repetition_penalty=1.3)
    s.observe(7)
    s.observe(40)
    s.edit(x[0], [])
    np.testing.assert_allclose(x[0], expected, rtol=1e-6)


def test_logprobs_are_those_of_the_raw_logits() -> None:
    x = logits(3, 30)
    norm = np.log(np.exp(x.astype(np.float64)).sum(1))
    rows = [
        Row(state(temperature=0.5, logprobs=0, logit_bias={4: 100.0}), 3),
        Row(state(temperature=0.0), 3),
        Row(state(temperature=0.0, logprobs=3), 3),
    ]
    first, second, third = Sampler(30).sample(x, rows)
    assert isinstance(first, Sample) and isinstance(second, Sample) and isinstance(third, Sample)
    assert first.token == 4 and first.logprob == pytest.approx(x[0, 4] - norm[0], abs=1e-6)
    assert first.top == () and second.logprob is None
    best = np.argsort(-x[2])[:3].tolist()
    assert [token for token, _ in third.top] == best and third.token == best[0]
    assert third.top[0][1] == third.logprob


def test_a_row_does_not_depend_on_its_batch_bitwise() -> None:
    vocab = 1013
    rng = np.random.default_rng(5)
    x = logits(24, vocab)
    rows = []
    for seed in range(24):
        params: dict[str, object] = {"temperature": float(rng.choice([0.0, 0.3, 1.0, 1.7]))}
        params |= [{}, {"top_p": 0.9}, {"top_k": 40}, {"min_p": 0.02}][seed % 4]
        params |= [{"logprobs": 2}, {}, {"presence_penalty": 1.0}][seed % 3]
        rows.append(Row(state(seed=seed, **params), 100 + seed))
    sampler = Sampler(vocab)
    together = sampler.sample(x, rows)
    for index, row in enumerate(rows):
        assert sampler.sample(x[index : index + 1].copy(), [row]) == [together[index]]
    backwards = sampler.sample(np.ascontiguousarray(x[::-1]), rows[::-1])
    assert backwards[::-1] == together


def test_a_broken_row_does_not_touch_the_others() -> None:
    x = logits(4, 20)
    x[1, 3] = np.nan
    x[2] = -np.inf
    for temperature in (0.0, 1.0):
        rows = [Row(state(seed=i, temperature=temperature, logprobs=1), 5) for i in range(4)]
        out = Sampler(20).sample(x, rows)
        assert isinstance(out[1], SamplingFailure) and isinstance(out[2], SamplingFailure)
        assert out[0] == Sampler(20).sample(x[:1], rows[:1])[0]
        assert isinstance(out[3], Sample)


def test_extreme_temperatures() -> None:
    x = logits(1, 20)
    best = int(x.argmax())
    for temperature in (5e-324, 1e-30, 1e-3):
        assert tokens(Sampler(20).sample(x, [Row(state(temperature=temperature), 5)])) == [best]


def test_shared_noise_accepts_between_its_bounds() -> None:
    """Draft from q, verify against p with the same noise: arXiv 2408.07978."""
    vocab, draws = 50, 8_000
    x = logits(2, vocab, 9)
    for mix in (0.05, 0.3, 1.0):
        target, draft = x[0], (1 - mix) * x[0] + mix * x[1]
        p, q = (np.exp(z.astype(np.float64)) for z in (target, draft))
        p, q = p / p.sum(), q / q.sum()
        tv = 0.5 * abs(p - q).sum()
        sampler, rows = Sampler(vocab), [Row(state(seed=s), 4) for s in range(draws)]
        out = tokens(sampler.sample(np.tile(target, (draws, 1)), rows))
        guess = tokens(sampler.sample(np.tile(draft, (draws, 1)), rows))
        accepted = float(np.mean(np.array(out) == np.array(guess)))
        slack = 4 * np.sqrt(0.25 / draws)
        assert (1 - tv) / (1 + tv) - slack <= accepted <= 1 - tv + slack
        assert abs(chi_square(np.bincount(out, minlength=vocab), p)) < 5
        assert abs(chi_square(np.bincount(guess, minlength=vocab), q)) < 5
