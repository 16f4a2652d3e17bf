"""Same function as transformers: tiny random checkpoints saved by it, loaded by us."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ingle.models import load_model
from ingle.models.batch import StepBatch

transformers = pytest.importorskip("transformers")

from tests.models.checkpoints import CONFIGS, PAST_ORIGINAL, VOCABULARY, save_random  # noqa: E402

CASES = [("deepseek_v3", seed) for seed in range(24)]
CASES += [(family, seed) for family in CONFIGS if family != "deepseek_v3" for seed in range(12)]


def paged_logits(model: torch.nn.Module, tokens: torch.Tensor, chunks: list[int]) -> torch.Tensor:
    """Absorbed-path logits of one sequence fed in chunks over shuffled pages."""
    cache = torch.zeros(model.cache_shape(4))
    pages, start, out = [3, 1, 0, 2], 0, []
    for size in chunks:
        ids = tokens[start : start + size].tolist()
        hidden = model.step(StepBatch.build([(ids, start, pages)]), cache)
        out.append(model.logits(hidden))
        start += size
    return torch.cat(out)


@pytest.mark.parametrize(("family", "seed"), CASES)
def test_logits_equal_transformers_on_both_paths(family: str, seed: int, tmp_path: Path) -> None:
    save_random(family, seed, tmp_path)
    tokens = random_tokens(2, seed)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = reference(tokens).logits
    scale = expected.abs().max()
    for tier in ("reference", "auto"):
        model = load_model(tmp_path, kernels=tier)
        with torch.no_grad():
            naive = model(tokens)
        assert (naive - expected).abs().max() < 1e-4 * scale
        absorbed = paged_logits(model, tokens[0], [PAST_ORIGINAL])
        assert (absorbed - expected[0]).abs().max() < 1e-4 * scale


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("seed", [3, 11])
def test_bfloat16_stays_close_to_fp32(family: str, seed: int, tmp_path: Path) -> None:
    """bf16 weights: ours and transformers' bf16 are equally far from transformers' fp32."""
    save_random(family, seed, tmp_path)
    tokens = random_tokens(1, seed)
    load = transformers.AutoModelForCausalLM.from_pretrained
    with torch.no_grad():
        exact = load(tmp_path, dtype=torch.float32).eval()(tokens).logits
        theirs = load(tmp_path, dtype=torch.bfloat16).eval()(tokens).logits.float()
        model = load_model(tmp_path, dtype=torch.bfloat16)
        ours = model(tokens).float()
        absorbed = paged_logits(model, tokens[0], [30, 1, 49])
    their_error = (theirs - exact).abs().mean()
    assert (ours - exact).abs().mean() < 1.5 * their_error
    assert (absorbed - exact[0]).abs().mean() < 1.5 * their_error


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("tier", ["reference", "auto"])
def test_prefill_equals_prefill_plus_decode_at_every_split(
    family: str, tier: str, tmp_path: Path
) -> None:
    save_random(family, 5, tmp_path)
    model = load_model(tmp_path, kernels=tier)
    tokens = random_tokens(1, 1)[0, :70]
    whole = paged_logits(model, tokens, [70])
    for k in range(1, 70) if tier == "auto" else (1, 31, 64, 69):
        split = paged_logits(model, tokens, [k] + [1] * (70 - k))
        if model.kernels.name == "cpu":
            assert torch.equal(split, whole), f"split at {k}"
        else:
            assert torch.allclose(split, whole, atol=1e-5), f"split at {k}"


def random_tokens(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (rows, PAST_ORIGINAL), generator=generator)
