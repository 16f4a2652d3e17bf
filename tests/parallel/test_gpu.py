"""The GPU's path as far as a CPU can go it: the same objects with their tensors in main memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ingle.errors import ConfigError
from ingle.models import build_model, load_model
from ingle.models.causal_lm import CausalLM
from ingle.models.layers.moe import Router
from ingle.parallel import choice
from ingle.parallel.gpu import GpuStreams, OnGpu
from ingle.parallel.layout import Precision
from ingle.training.balance import expert_loads
from ingle.training.data import Mixture
from ingle.training.loop import Run, train
from ingle.training.opening import write_tokenizer
from ingle.training.presets import model_preset
from ingle.training.recipes import on_gpu
from ingle.training.streams import Streams

RUN = Run(
    "test", model_preset("nano"), Mixture({"sums": 1.0, "gcd": 1.0}, chat=False), steps=4,
    batch_tokens=512, longest=200, save_every=2,
)  # fmt: skip


def gradient(streams: Streams | GpuStreams, model: CausalLM) -> tuple[torch.Tensor, list[float]]:
    """Of two steps together, and the loss of the second."""
    with streams:
        streams.gradient(RUN.jobs(0), RUN.jobs(1))
        loss = streams.gradient(RUN.jobs(1))
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]), (
        loss.parts + loss.counts
    )


@pytest.mark.parametrize("precision,limit", [("fp32", 0.0), ("bf16", 0.02)])
def test_gradient_is_that_of_the_loop_on_cpus(
    tmp_path: Path, precision: Precision, limit: float
) -> None:
    write_tokenizer(RUN, tmp_path)
    plain = build_model(RUN.model, 0, "reference").train()
    wanted, loss = gradient(Streams(plain, RUN.algorithm(), 2, tmp_path, False, 1), plain)
    layout = OnGpu(build_model(RUN.model, 0, "reference").train(), precision, "cpu")
    streams = GpuStreams(layout, RUN.algorithm(), tmp_path, False, 2)
    found, found_loss = gradient(streams, layout.model)
    assert float((found - wanted).norm() / wanted.norm()) <= limit
    assert found_loss == pytest.approx(loss, rel=max(limit, 1e-12) / 10)
    loads = [x.sum() for x in expert_loads(layout.model)]
    assert loads == [x.sum() for x in expert_loads(plain)]
    kept = {id(m.weight) for m in streams.passes.modules() if isinstance(m, Router)}
    for p in streams.passes.parameters():
        wide = precision == "fp32" or id(p) in kept
        assert p.dtype == (torch.float32 if wide else torch.bfloat16)
    assert all(p.dtype == torch.float32 for p in layout.model.parameters())


def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "check_gpu", lambda: None)
    monkeypatch.setattr(choice, "OnGpu", lambda model, precision: OnGpu(model, precision, "cpu"))
    run = replace(on_gpu(RUN), batch_tokens=512)
    train(run, tmp_path / "whole", compiled=False, processes=1)
    train(run, tmp_path / "parts", compiled=False, processes=2, stop_after=3)
    train(run, tmp_path / "parts", compiled=False, processes=2)
    whole, parts = (
        load_model(tmp_path / name, kernels="reference").state_dict() for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_error_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        choice.lay_out(build_model(RUN.model, 0, "reference"), "bf16", device="cuda")
