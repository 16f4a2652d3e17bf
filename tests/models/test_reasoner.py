"""The shipped model: loads everywhere, gives transformers' logits, answers as its card says."""

from __future__ import annotations

import json
import re

import pytest
import torch

from ingle import LLM
from ingle.models import load_model, resolve_model
from ingle.tasks import TASKS, examples
from ingle.training.evaluation.evaluate import evaluate


def test_transformers_gives_our_logits_on_the_shipped_weights() -> None:
    transformers = pytest.importorskip("transformers")
    folder = resolve_model(None)
    load = transformers.DeepseekV3ForCausalLM.from_pretrained
    reference = load(folder, dtype=torch.float32).eval()
    model = load_model()
    tokens = torch.randint(0, 512, (2, 300), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, ours = reference(tokens).logits, model(tokens)
    assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()


def test_the_folder_is_small_and_complete() -> None:
    folder = resolve_model(None)
    assert (folder / "model.safetensors").stat().st_size < 32 << 20
    card = (folder / "README.md").read_text("utf-8")
    for task in TASKS.values():
        assert task.TITLE in card
    assert json.loads((folder / "generation_config.json").read_text())["do_sample"] is False
    assert load_model().num_mtp == 1


@pytest.mark.slow
def test_it_answers_fresh_problems_as_well_as_its_card_says() -> None:
    """Within five points of the card's mean: 360 problems have a standard error of one."""
    card = (resolve_model(None) / "README.md").read_text("utf-8")
    stated = re.search(r"\*\*([0-9.]+) %\*\*", card)
    assert stated is not None
    found = evaluate(LLM(max_sequences=32), list(TASKS), n=15, seed=123)
    assert 100 * found.mean > float(stated[1]) - 5
    assert found.contamination < 0.05


@pytest.mark.slow
def test_the_examples_offered_to_people_are_answered() -> None:
    llm = LLM(max_sequences=32)
    results = llm.chat([[{"role": "user", "content": text}] for text in examples()])
    assert all(r.finish_reason == "stop" and r.text for r in results)
    assert results[0].reasoning.startswith("3 from 75 6 12\n")
