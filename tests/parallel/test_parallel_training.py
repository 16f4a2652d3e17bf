"""Many processes train as one does: FSDP2, experts that processes share, bf16, checkpoints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from launch import HERE, RUN, checkpoint, command, differences, environment, logged, torchrun

from ingle.training import loop
from ingle.training.optim import OptimConfig

pytestmark = pytest.mark.slow
SCRIPT = HERE / "several.py"
ROUNDING = 2e-5  # of the largest number of a tensor, after four steps


def losses(folder: Path) -> torch.Tensor:
    """Both losses of every step, in full."""
    steps = json.loads((folder / "losses.json").read_text("utf-8"))
    return torch.tensor([parts for parts, _, _ in steps], dtype=torch.float64)


def alone(folder: Path, **changes: object) -> Path:
    """The same run by one process; its losses beside it."""
    folder.mkdir(parents=True)
    kept, report = [], loop._report

    def recording(log, run, step, loss, norm, *rest):  # type: ignore[no-untyped-def]
        kept.append([loss.parts, loss.counts, norm])
        report(log, run, step, loss, norm, *rest)

    loop._report = recording
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        loop.train(replace(RUN, **changes), folder, compiled=False, processes=1)  # type: ignore[arg-type]
    finally:
        loop._report = report
        torch.set_num_threads(threads)
    (folder / "losses.json").write_text(json.dumps(kept), "utf-8")
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return alone(tmp_path_factory.mktemp("alone") / "run")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    torchrun(2, SCRIPT, "every_layout", folder)
    return folder


@pytest.mark.parametrize("layout", ["fsdp", "experts"])
def test_two_processes_lose_and_end_as_one(one: Path, two: Path, layout: str) -> None:
    assert len(losses(one)) == RUN.steps
    assert torch.allclose(losses(two / layout), losses(one), rtol=0, atol=1e-6)
    found = differences(one, two / layout)
    assert max(found.values()) < ROUNDING, sorted(found, key=found.__getitem__)[-3:]
    for mine, theirs in zip(logged(one), logged(two / layout), strict=True):
        for name in ("trained_tokens", "dead_experts", "max_violation", "lr"):
            assert mine[name] == theirs[name], name
        assert theirs["grad_norm"] == pytest.approx(mine["grad_norm"], abs=2e-4)


def test_bf16_is_of_products_only(one: Path, two: Path) -> None:
    exact, rounded = losses(one), losses(two / "bf16")
    assert torch.allclose(rounded, exact, rtol=2e-3)
    assert not torch.allclose(rounded, exact, rtol=1e-6)
    assert {t.dtype for t in checkpoint(two / "bf16").values() if t.is_floating_point()} == {
        torch.float32
    }
    weights = checkpoint(two / "bf16")["model.layers.1.self_attn.o_proj.weight"]
    assert not torch.equal(weights, weights.bfloat16().float())  # updates are not rounded


def test_streams_that_cannot_be_divided_are_refused(two: Path) -> None:
    for rank in range(2):
        assert "3 streams cannot be divided among 2" in (two / f"error-{rank}").read_text("utf-8")


def test_two_replicas_of_experts_that_two_processes_share(tmp_path: Path) -> None:
    torchrun(4, SCRIPT, "table", tmp_path)
    single = alone(tmp_path / "alone", streams=4)
    assert torch.allclose(losses(tmp_path), losses(single), rtol=0, atol=1e-6)
    assert max(differences(single, tmp_path).values()) < ROUNDING


def test_a_run_killed_among_two_ends_as_uninterrupted(two: Path, tmp_path: Path) -> None:
    """One of both is killed at some moment after the first checkpoint; torchrun ends the other."""
    with subprocess.Popen(
        command(2, SCRIPT, "train", tmp_path), env=environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:  # fmt: skip
        deadline = time.monotonic() + 300
        while not (tmp_path / "progress.json").exists():
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(int((tmp_path / "pid-1").read_text("utf-8")), signal.SIGKILL)
        assert running.wait(120) != 0
    assert json.loads((tmp_path / "progress.json").read_text("utf-8"))["step"] == 2
    torchrun(2, SCRIPT, "train", tmp_path)
    assert [entry["step"] for entry in logged(tmp_path)] == list(range(RUN.steps))
    whole, parts = checkpoint(two / "fsdp"), checkpoint(tmp_path)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_one_goes_on_from_two_and_two_from_one(one: Path, tmp_path: Path) -> None:
    before = tmp_path / "two_then_one"
    before.mkdir()
    torchrun(2, SCRIPT, "train", before, STOP_AFTER="2")
    loop.train(RUN, before, compiled=False, processes=1)
    assert max(differences(one, before).values()) < ROUNDING
    after = tmp_path / "one_then_two"
    after.mkdir()
    loop.train(RUN, after, compiled=False, processes=1, stop_after=2)
    torchrun(2, SCRIPT, "train", after)
    assert max(differences(one, after).values()) < ROUNDING
    assert [entry["step"] for entry in logged(after)] == list(range(RUN.steps))


def test_rows_find_their_experts_and_the_way_back(tmp_path: Path) -> None:
    torchrun(2, SCRIPT, "routed", tmp_path)
    for rank in range(2):
        found = torch.load(tmp_path / f"routed-{rank}.pt", weights_only=True)
        assert len(found) == 8
        for case in range(4):
            whole, parallel = found[f"{case}/whole"], found[f"{case}/parallel"]
            for a, b in zip(whole, parallel, strict=True):
                assert torch.allclose(a, b, atol=1e-5), case
    assert float(found["0/whole"][0].abs().max()) > 0.1


def test_the_optimiser_of_the_comparison_moves_matrices_by_muon() -> None:
    """Else the comparisons above would say nothing of gathered matrices."""
    assert OptimConfig() == RUN.optim and RUN.optim.muon


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="needs Linux's scheduler")
def test_processes_end_in_peace_while_gloo_drops_its_last_tensor() -> None:
    torchrun(2, HERE / "several_leave.py")
