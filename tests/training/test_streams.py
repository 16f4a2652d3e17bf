"""Gradients of several streams: the same from one process as from many, and from any cut."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ingle.models import build_model
from ingle.models.causal_lm import CausalLM
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.balance import expert_loads
from ingle.training.data import Mixture
from ingle.training.loop import Run, train
from ingle.training.loss import count_targets, training_loss
from ingle.training.opening import write_tokenizer
from ingle.training.presets import model_preset
from ingle.training.recipes import FIRST_WEIGHTS
from ingle.training.streams import Streams

RUN = Run(
    "test", model_preset("nano"), Mixture(FIRST_WEIGHTS, chat=False), steps=3,
    batch_tokens=1200, streams=3, longest=288, warmup=2,
)  # fmt: skip


def gradients(model: CausalLM) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def jobs_of(step: int) -> list[tuple[int, int]]:
    return [(step, stream) for stream in range(3)]


def logged_losses(folder: Path) -> list[tuple[float, float]]:
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()[1:]
    return [(entry["loss"], entry["grad_norm"]) for entry in map(json.loads, lines)]


@pytest.mark.slow
def test_helpers_give_the_gradient_of_one_process_to_the_last_bit(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    write_tokenizer(RUN, tmp_path)
    found = []
    for processes in (1, 2, 3):
        model = build_model(RUN.model, kernels="reference").train()
        with Streams(model, RUN.algorithm(), 3, tmp_path, False, processes) as streams:
            losses = [streams.gradient([(step, i) for i in range(3)]) for step in (4, 5)]
        found.append((losses, gradients(model), [load.clone() for load in expert_loads(model)]))
    torch.set_num_threads(threads)
    alone, *shared = found
    assert len(alone[1]) > 20
    for losses, grads, loads in shared:
        assert losses == alone[0]
        assert all(torch.equal(a, b) for a, b in zip(grads, alone[1], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(loads, alone[2], strict=True))


@pytest.mark.slow
def test_batches_drawn_ahead_change_nothing(tmp_path: Path) -> None:
    """Also where the next step is another than was announced, or comes twice."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    write_tokenizer(RUN, tmp_path)
    steps = [(4, 5), (5, 9), (7, 8), (8, 8), (8, 3)]  # a step, and which one is announced with it
    found = []
    for processes, announced in ((1, False), (1, True), (2, True)):
        model = build_model(RUN.model, kernels="reference").train()
        with Streams(model, RUN.algorithm(), 3, tmp_path, False, processes) as streams:
            losses = [
                streams.gradient(jobs_of(step), jobs_of(later) if announced else ())
                for step, later in steps
            ]
        found.append((losses, gradients(model)))
    torch.set_num_threads(threads)
    plain, *ahead = found
    for losses, grads in ahead:
        assert losses == plain[0]
        assert all(torch.equal(a, b) for a, b in zip(grads, plain[1], strict=True))


@pytest.mark.slow
def test_helpers_see_every_update_of_the_weights(tmp_path: Path) -> None:
    for processes in (1, 3):
        train(RUN, tmp_path / str(processes), compiled=False, processes=processes)
    one, three = (logged_losses(tmp_path / n) for n in ("1", "3"))
    assert len(one) == 3
    assert one == three


def test_a_step_is_normalised_by_all_its_streams(tmp_path: Path) -> None:
    write_tokenizer(RUN, tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    model = build_model(RUN.model, kernels="reference").train()
    run = replace(RUN, mtp_share=1.0)
    algorithm = run.algorithm()
    with Streams(model, algorithm, 3, tmp_path, False, 1) as streams:
        loss = streams.gradient([(7, stream) for stream in range(3)])
    batches = [batch for i in range(3) for batch in algorithm.batches((7, i), tokenizer)]
    counts = [count_targets(batch, 400) for batch in batches]
    alone = [
        float(training_loss(model, batch, 0.3, 400, count)[1])
        for batch, count in zip(batches, counts, strict=True)
    ]
    whole = sum(a * float(c[0]) for a, c in zip(alone, counts, strict=True))
    assert loss.counts[0] == sum(int(c[0]) for c in counts)
    assert loss.parts[0] == pytest.approx(whole / loss.counts[0], rel=1e-5)
    assert len({tuple(batch.tokens_T.tolist()) for batch in batches}) == 3
