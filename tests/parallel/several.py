"""What each of several processes does in a test: `several.py WHAT FOLDER`, started by torchrun."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from launch import RUN

from ingle.errors import ConfigError
from ingle.models.layers.moe import Experts
from ingle.parallel.experts import ParallelExperts
from ingle.parallel.mesh import join
from ingle.training import loop
from ingle.training.presets import model_preset

RANK = int(os.environ["RANK"])


def record(folder: Path, losses: list) -> None:
    """Losses and norms as they are, before the log rounds them."""
    report = loop._report

    def recording(log, run, step, loss, norm, *rest):  # type: ignore[no-untyped-def]
        losses.append([loss.parts, loss.counts, norm])
        (folder / "losses.json").write_text(json.dumps(losses), "utf-8")
        report(log, run, step, loss, norm, *rest)

    loop._report = recording


def train(folder: Path, expert_parallel: int = 1, **changes: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plain, losses = loop._report, []
    record(folder, losses)
    run = replace(RUN, **changes)  # type: ignore[arg-type]
    stop = int(os.environ.get("STOP_AFTER", "0")) or None
    loop.train(run, folder, compiled=False, stop_after=stop, processes=1,
               expert_parallel=expert_parallel)  # fmt: skip
    loop._report = plain


def every_layout(folder: Path) -> None:
    train(folder / "fsdp")
    train(folder / "experts", expert_parallel=2)
    train(folder / "bf16", expert_parallel=2, precision="bf16")
    try:
        train(folder / "three", streams=3)
    except ConfigError as error:
        (folder / f"error-{RANK}").write_text(str(error), "utf-8")


def table(folder: Path) -> None:
    """Four processes: two replicas of experts that two share."""
    train(folder, expert_parallel=2, streams=4)


def routed(folder: Path) -> None:
    """One layer's experts alone: result and gradients, of rows that this process sends."""
    config = replace(model_preset("nano"), hidden_size=16, moe_intermediate_size=8,
                     n_routed_experts=6, num_experts_per_tok=2)  # fmt: skip
    torch.manual_seed(0)
    whole = Experts(config)
    for p in whole.parameters():
        torch.nn.init.normal_(p, std=0.3)
    world = join(2)
    assert world is not None and world.size == 2
    local = ParallelExperts(whole, world.experts.get_group())
    found = {}
    # all rows to one process, to none of its own, uneven, and none at all
    for case, choices in enumerate(([0, 1], [3, 5], [0, 2, 3, 5, 5], [])):
        torch.manual_seed(10 * case + RANK)
        rows = 0 if not choices else 5 + 3 * RANK
        x = torch.randn(rows, 16, requires_grad=True)
        ids = torch.tensor([[choices[i % len(choices)], choices[(i + 1) % len(choices)]]
                            for i in range(rows)], dtype=torch.int32).view(-1, 2)  # fmt: skip
        weights = torch.rand(rows, 2, requires_grad=True)
        counts = torch.bincount(ids.flatten(), minlength=6).float()
        slope = torch.randn(rows, 16)
        for name, module in (("whole", whole), ("parallel", local)):
            module.zero_grad()
            x.grad = weights.grad = None
            y = module(x, ids, weights, counts)
            (y * slope).sum().backward()
            experts = [p.grad for p in module.parameters()]
            if name == "whole":  # the gradient of all processes' rows, and of it this part
                experts = [torch.zeros_like(p) if p.grad is None else p.grad
                           for p in module.parameters()]  # fmt: skip
                for grad in experts:
                    dist.all_reduce(grad)
                experts = [grad.chunk(world.size)[RANK] for grad in experts]
            found[f"{case}/{name}"] = [y.detach(), x.grad, weights.grad, *experts]
    torch.save(found, folder / f"routed-{RANK}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[2])
    (target / f"pid-{RANK}").write_text(str(os.getpid()), "utf-8")
    {"every_layout": every_layout, "table": table, "routed": routed, "train": train}[sys.argv[1]](
        target
    )
