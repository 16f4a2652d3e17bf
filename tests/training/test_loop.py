"""The loop: resuming is exact, balance moves the bias, losses are normalised once."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import torch

from ingle.models import build_model, load_model
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.balance import bias_update, update_router_biases
from ingle.training.data import Document, Mixture, pack
from ingle.training.loop import Run, train
from ingle.training.loss import count_targets, training_loss
from ingle.training.presets import model_preset
from ingle.training.recipes import FIRST_WEIGHTS, sft_run

MIXTURE = Mixture({"sums": 1.0, "letter_counting": 1.0}, chat=False)


def small_run(steps: int) -> Run:
    return Run(
        "test",
        model_preset("nano"),
        MIXTURE,
        steps,
        batch_tokens=256,
        longest=128,
        warmup=2,
        decay=0.5,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder, kernels="reference").state_dict()


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    run = replace(small_run(6), save_every=2)
    train(run, tmp_path / "whole", compiled=False, processes=1)
    train(run, tmp_path / "parts", compiled=False, processes=2, stop_after=3)
    train(run, tmp_path / "parts", compiled=False, processes=1)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name in whole:
        assert torch.equal(whole[name], parts[name]), name
    metrics = [
        [json.loads(x) for x in (tmp_path / f / "metrics.jsonl").read_text().splitlines()][1:]
        for f in ("whole", "parts")
    ]
    assert [m["loss"] for m in metrics[0]] == [m["loss"] for m in metrics[1]]
    assert [m["step"] for m in metrics[1]] == list(range(6))
    assert "<svg" in (tmp_path / "parts" / "report.html").read_text()


def test_training_lowers_the_loss_and_fine_tuning_starts_from_its_parent(tmp_path: Path) -> None:
    train(small_run(30), tmp_path / "base", compiled=False, processes=1)
    lines = (tmp_path / "base" / "metrics.jsonl").read_text().splitlines()[1:]
    losses = [json.loads(x)["loss"] for x in lines]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    run = sft_run("nano", tmp_path / "base", steps=1)
    train(replace(run, batch_tokens=576, optim=replace(run.optim, muon_lr=0.0, adam_lr=0.0)),
          tmp_path / "tuned", compiled=False, processes=1)  # fmt: skip
    base, tuned = weights(tmp_path / "base"), weights(tmp_path / "tuned")
    same = [n for n in base if torch.equal(base[n], tuned[n])]
    assert len(same) >= len(base) - 4  # only router biases moved


def test_the_loss_does_not_depend_on_padding_or_document_order(tokenizer: Tokenizer) -> None:
    model = build_model(model_preset("nano"), kernels="reference")
    drawn = Mixture(FIRST_WEIGHTS, chat=True).documents(random.Random(0), tokenizer)
    documents = [next(drawn) for _ in range(8)]
    endless = [Document([1] * 900, [True] * 900)]
    length = sum(len(d.tokens) for d in documents)
    losses = [
        training_loss(model, batch, 0.3, len(batch.tokens_T), count_targets(batch, 9999))[0]
        for batch in (
            pack(iter(documents + endless), length, 900, 2),
            pack(iter(documents[::-1] + endless), length, 900, 2),
            pack(iter(documents + endless), length + 99, 900, 2),
        )
    ]
    assert torch.allclose(losses[1], losses[0], rtol=1e-5)
    assert torch.allclose(losses[2], losses[0], rtol=1e-5)


def test_the_bias_rises_for_idle_experts_and_falls_for_busy_ones() -> None:
    moved = bias_update(torch.tensor([0.0, 10.0, 5.0]), 0.01)
    assert torch.allclose(moved, torch.tensor([0.01, -0.01, 0.0]))


def test_balancing_evens_out_a_lopsided_router() -> None:
    model = build_model(model_preset("nano"), kernels="reference").train()
    gate = model.model.layers[1].mlp.gate
    gate.e_score_correction_bias[:2] = 1.0  # two experts draw every token at first
    tokens = torch.randint(0, 512, (4, 128), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.hidden(tokens)
        first = update_router_biases(model, 0.02)
        found = []
        for _ in range(150):
            model.hidden(tokens)
            found.append(update_router_biases(model, 0.02))
    assert first.dead_experts > 0
    assert found[-1].dead_experts == 0
    late = [balance.max_violation for balance in found[-30:]]
    assert sum(late) / len(late) < 0.5 * first.max_violation
