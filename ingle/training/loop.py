"""The training loop: pre-training and supervised fine-tuning differ only in their `Run`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from ingle.models.causal_lm import CausalLM
from ingle.models.config import ModelConfig
from ingle.parallel.layout import Device, Precision
from ingle.training.balance import Balance, update_router_biases
from ingle.training.data import Documents
from ingle.training.metrics import MetricsLog
from ingle.training.next_token import NextToken
from ingle.training.opening import open_run
from ingle.training.optim import OptimConfig, rate_factor
from ingle.training.report.page import write_report
from ingle.training.streams import StepLoss

AHEAD = 32  # steps whose batches may be drawn before their turn


@dataclass(frozen=True)
class Run:
    """Everything that decides a training run. The same Run gives the same weights on one machine.

    schedule: linear warm-up over `warmup` steps, constant, then linear decay to zero over the last
    `decay` share of the steps (warmup-stable-decay). `bias_freeze`: share of the steps at the end
    in which router biases rest. `parent`: folder whose weights the run starts from. `precision`:
    of products (parallel/choice.py: lay_out); bf16 is for GPUs and for runs started by
    torchrun. `device`: "cuda" trains on one GPU.
    """

    name: str
    model: ModelConfig
    mixture: Documents
    steps: int
    batch_tokens: int = 8192  # tokens of a step
    streams: int = 2  # packed streams they are cut into, each the work of one process
    longest: int = 512  # a document of more tokens is skipped
    seed: int = 0
    warmup: int = 50
    decay: float = 0.0
    optim: OptimConfig = field(default_factory=OptimConfig)
    clip: float = 1.0
    mtp_weight: float = 0.3
    mtp_share: float = 0.125  # share of the tokens the MTP loss is estimated on
    bias_speed: float = 5e-3
    bias_freeze: float = 0.0
    parent: Path | None = None
    save_every: int = 200
    precision: Precision = "fp32"
    device: Device = "cpu"

    def learning_rate(self, step: int) -> float:
        """Factor on the peak rates at a step."""
        return rate_factor(step, self.steps, self.warmup, self.decay)

    def algorithm(self) -> NextToken:
        """What a step minimises."""
        length = self.batch_tokens // self.streams
        return NextToken(
            self.mixture, self.seed, self.streams, length, self.longest, self.mtp_weight,
            mtp_tokens=round(self.mtp_share * length),
        )  # fmt: skip

    def jobs(self, step: int) -> list[tuple[int, int]]:
        """A step's streams, as its algorithm wants them named."""
        return [(step, stream) for stream in range(self.streams)]

    def bias_speed_at(self, step: int) -> float:
        return 0.0 if step >= self.steps * (1 - self.bias_freeze) else self.bias_speed


def train(
    run: Run, folder: Path, compiled: bool = True, stop_after: int | None = None,
    processes: int | None = None, expert_parallel: int = 1,
) -> CausalLM:  # fmt: skip
    """Run, or go on with, a training run in `folder`; returns the trained model.

    Leaves a model folder that serves as it is, with a statement of where it comes from
    (`provenance.json`, `bom.cdx.json`), `metrics.jsonl` and `report.html`. stop_after ends this
    call at that step, to be continued by the next. processes: how many compute gradients (default:
    one a core, at most one a stream of the run). Started by torchrun, the processes it made do that
    instead, each with its part of the weights; expert_parallel: how many of them share experts.
    """
    opened = open_run(run, folder, expert_parallel, "reference", stop_after, run.device)
    model, layout, last = opened.model, opened.layout, opened.last
    log = MetricsLog(folder, run, opened.done) if layout.leads else None
    with opened.streams(run.algorithm(), compiled, processes) as streams:
        for step in range(opened.done, last):
            started = time.perf_counter()
            later = range(step + 1, min(step + 1 + AHEAD, last))
            loss = streams.gradient(run.jobs(step), [job for s in later for job in run.jobs(s)])
            with streams.resting():
                norm = layout.clip(run.clip)
                opened.optimizers.step(run.learning_rate(step))
            balance = update_router_biases(model, run.bias_speed_at(step))
            if log is not None:
                _report(log, run, step, loss, norm, balance, started)
            if (step + 1) % run.save_every == 0 or step + 1 == last:
                opened.save(step + 1)
                if layout.leads:
                    write_report(folder)
    return layout.assembled().eval()


def _report(
    log: MetricsLog, run: Run, step: int, loss: StepLoss, norm: float, balance: Balance,
    started: float,
) -> None:  # fmt: skip
    seconds = time.perf_counter() - started
    main, mtp = loss.parts
    log.write({
        "step": step, "loss": round(main, 5), "mtp_loss": round(mtp, 5),
        "grad_norm": round(norm, 4), "lr": round(run.learning_rate(step), 5),
        "max_violation": round(balance.max_violation, 3), "dead_experts": balance.dead_experts,
        "trained_tokens": int(loss.counts[0]), "seconds": round(seconds, 3),
    })  # fmt: skip
    log.show(
        step,
        f"{run.name} {step + 1}/{run.steps}  loss {log.average(main):.4f}  mtp {mtp:.3f}  "
        f"{run.batch_tokens / seconds:,.0f} tok/s  MaxVio {balance.max_violation:.2f}  "
        f"dead {balance.dead_experts}  {log.left(seconds, run.steps - step - 1)}",
        every=20,
    )
