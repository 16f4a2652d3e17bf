"""Fine-tuning any model folder on a file of conversations, whole or with low-rank adapters.

Epoch after epoch the documents are shuffled and laid end to end into batches without padding; a
step takes the next few of them. Which document comes when is a pure function of data and seed, so a
resumed run goes on exactly as it would have. Rates follow DeepSeek's distillation: AdamW, a short
warm-up, then a cosine to one tenth.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, repeat
from pathlib import Path

import torch
from torch import Tensor

from ingle.engine.progress import progress
from ingle.errors import ConfigError
from ingle.models import load_model, read_config
from ingle.models.causal_lm import CausalLM
from ingle.models.config import ModelConfig
from ingle.parallel.choice import lay_out
from ingle.parallel.environment import refuse_several
from ingle.parallel.layout import Layout, Precision
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.balance import Balance, update_router_biases
from ingle.training.checkpoint import load_checkpoint, save_checkpoint
from ingle.training.commit import finish, naming_disk_errors, replacing
from ingle.training.data import Document, PackedBatch, pack
from ingle.training.finetuning.adapter_checkpoint import (
    load_adapter_checkpoint,
    save_adapter_checkpoint,
)
from ingle.training.finetuning.conversations import Dataset, Documents
from ingle.training.finetuning.lora import LoraConfig, add_adapters
from ingle.training.finetuning.merge import COMPANIONS
from ingle.training.loss import count_targets, mean_cross_entropy, training_loss
from ingle.training.metrics import MetricsLog
from ingle.training.optim import OptimConfig, Optimizers
from ingle.training.origin import Origin, origin_of
from ingle.training.report.page import write_report
from ingle.training.streams import StepLoss, open_streams

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Conversations:
    """The data of a run, as its records name them."""

    sha256: str
    rows: int
    left_out: int
    documents: int
    trained_tokens: int

    def describes(self) -> str:
        """What they are, in one sentence for the bill of materials."""
        return f"{self.rows} conversations of a file with SHA-256 {self.sha256}."


@dataclass(frozen=True)
class FineTuning:
    """Everything that decides a run; the same one on the same data gives the same weights.

    length: most tokens of a document and of a batch; streams: batches of a step. lora: None trains
    the whole model, in fp32. dtype: of the frozen base, "fp32" or "bf16". warmup: share of the
    steps. bias_speed: of the routers' biases, where the whole model is trained. precision: of
    products (parallel/choice.py: lay_out); bf16 is for the whole model in runs under torchrun.
    """

    name: str
    model: ModelConfig
    parent: Path
    mixture: Conversations
    length: int
    streams: int
    epochs: int = 2
    lora: LoraConfig | None = None
    dtype: str = "fp32"
    seed: int = 0
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(muon=False, adam_lr=2e-4))
    warmup: float = 0.03
    clip: float = 1.0
    mtp_weight: float = 0.1
    bias_speed: float = 1e-3
    save_every: int = 50
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if min(self.length, self.streams, self.epochs, self.save_every) < 1:
            raise ConfigError(
                "Length, batch, epochs and steps between checkpoints must be at least 1."
            )
        if self.length > self.model.max_position_embeddings:
            raise ConfigError(
                f"A length of {self.length} tokens is beyond the model's context of "
                f"{self.model.max_position_embeddings}."
            )
        if self.lora is None and self.dtype != "fp32":
            raise ConfigError("The whole model is trained in fp32; bf16 needs --lora.")
        if self.lora is not None and self.precision != "fp32":
            raise ConfigError("An adapter is trained in fp32, on a base of --dtype.")
        if not 0 < self.optim.adam_lr < math.inf:
            raise ConfigError("The learning rate must be a number above 0.")

    def learning_rate(self, step: int, steps: int) -> float:
        """Factor on the peak rate: linear warm-up, then half a cosine from 1 to 0.1."""
        warm = max(1, round(self.warmup * steps))
        if step < warm:
            return (step + 1) / warm
        return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def fine_tuning(
    parent: Path, dataset: Dataset, learning_rate: float | None, **choices: object
) -> FineTuning:
    """The run of a model folder on a data set. learning_rate: None for 2e-4 with adapters and 2e-5
    for the whole model. choices: fields of FineTuning. Raises ConfigError."""
    rate = learning_rate
    if rate is None:
        rate = 2e-4 if choices.get("lora") else 2e-5
    documents = dataset.documents
    data = Conversations(
        dataset.sha256, dataset.rows, len(dataset.broken), len(documents), documents.trained_tokens
    )
    return FineTuning(
        f"{parent.resolve().name}-sft", read_config(parent), parent, data,
        optim=OptimConfig(muon=False, adam_lr=rate), **choices,  # type: ignore[arg-type]
    )  # fmt: skip


def plan_batches(sizes: Sequence[int], length: int, epochs: int, seed: int) -> list[list[int]]:
    """Documents of each batch of at most `length` tokens; every epoch has an order of its own."""
    batches: list[list[int]] = []
    room = -1
    for epoch in range(epochs):
        order = list(range(len(sizes)))
        random.Random(f"{seed}:{epoch}").shuffle(order)
        for index in order:
            if sizes[index] > room:
                batches.append([])
                room = length
            batches[-1].append(index)
            room -= sizes[index]
    return batches


class Answers:
    """`Algorithm` of fine-tuning: the next token of every answer. A job is the index of a batch."""

    def __init__(self, documents: Documents, plan: list[list[int]], mtp_weight: float) -> None:
        self.documents, self.plan, self.mtp_weight = documents, plan, mtp_weight

    def batches(self, job: int, tokenizer: Tokenizer) -> list[PackedBatch]:
        """The batch, without padding."""
        chosen = [self.documents[index] for index in self.plan[job]]
        length = sum(len(document.tokens) for document in chosen)
        end = Document([0] * length, [False] * length)  # does not fit, and so ends the stream
        return [pack(chain(chosen, repeat(end)), length, length, 0)]

    def counts(self, batch: PackedBatch) -> Tensor:
        """Trained tokens of the main and of the MTP loss, [2]."""
        return count_targets(batch, len(batch.tokens_T) if self.mtp_weight else 0)

    def loss(self, model: CausalLM, batch: PackedBatch, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The loss; parts are the main and the MTP loss. Logits are made only where they count."""
        if self.mtp_weight:
            size = len(batch.tokens_T)
            loss, main, mtp = training_loss(model, batch, self.mtp_weight, size, counts)
            return loss, torch.stack([main, mtp])
        trained_T = batch.targets_T != -100
        hidden_TD = model.hidden(batch.tokens_T[None], batch.starts_T)[0]
        loss = mean_cross_entropy(
            hidden_TD[trained_T], model.head(), batch.targets_T[trained_T], counts[0]
        )
        return loss, torch.stack([loss.detach(), torch.zeros(())])


def finetune(
    run: FineTuning, documents: Documents, folder: Path, stop_after: int | None = None,
    expert_parallel: int = 1,
) -> CausalLM:  # fmt: skip
    """Run, or go on with, a fine-tuning in `folder`; returns the trained model.

    Leaves a model folder, or with `lora` an adapter in PEFT's format, with its statement of origin,
    `metrics.jsonl` and `report.html`. stop_after ends this call at that step. Started by torchrun,
    the weights of a whole model are divided among its processes; expert_parallel: how many of them
    share experts. Raises ConfigError where the folder holds another run, NotSavedError where the
    disk is full.
    """
    with progress(f"loading {run.parent.resolve().name}", in_bytes=True) as show:
        model = load_model(run.parent, DTYPES[run.dtype], "reference", progress=show).train()
    if run.lora is None:
        model.requires_grad_(True)
        layout = lay_out(model, run.precision, expert_parallel)
    else:
        refuse_several("LoRA")
        add_adapters(model, run.lora, run.seed)
        layout = Layout(model)
    sizes = [documents.size(index) for index in range(len(documents))]
    plan = plan_batches(sizes, run.length, run.epochs, run.seed)
    steps = -(-len(plan) // run.streams)
    mtp_weight = run.mtp_weight if run.lora is None and model.num_mtp else 0.0
    optimizers = Optimizers(model, run.optim, layout)
    with naming_disk_errors(folder):
        if layout.leads:
            folder.mkdir(parents=True, exist_ok=True)
            finish(folder)
        layout.wait()
        check_same(run, folder)
        if layout.leads and run.lora is None:
            _copy_companions(run.parent, folder)
        load = load_checkpoint if run.lora is None else load_adapter_checkpoint
        done = load(folder, model, optimizers)
        origin = origin_of(run, folder, done)
        log = MetricsLog(folder, run, done) if layout.leads else None
        last = min(steps, stop_after or steps)
        algorithm = Answers(documents, plan, mtp_weight)
        with open_streams(layout, algorithm, run.streams, run.parent, False, 1) as streams:
            for step in range(done, last):
                started = time.perf_counter()
                first = step * run.streams
                loss = streams.gradient(range(first, min(first + run.streams, len(plan))))
                norm = layout.clip(run.clip)
                optimizers.step(run.learning_rate(step, steps))
                balance = update_router_biases(model, 0.0 if run.lora else run.bias_speed)
                if log is not None:
                    _report(log, run, (step, steps), loss, norm, balance, started)
                if (step + 1) % run.save_every == 0 or step + 1 == last:
                    _save(run, folder, model, optimizers, step + 1, origin)
                    if layout.leads:
                        write_report(folder)
    return layout.assembled().eval()


def _copy_companions(parent: Path, folder: Path) -> None:
    """What goes with a model's weights, its tokenizer above all."""
    for name in COMPANIONS:
        if (parent / name).is_file():
            shutil.copyfile(parent / name, folder / name)


def check_same(run: FineTuning, folder: Path) -> None:
    """Raise ConfigError where `folder` holds a run with other choices or other data."""
    file = folder / "metrics.jsonl"
    if not file.is_file() or not (folder / "progress.json").is_file():
        return
    with file.open(encoding="utf-8") as lines:
        earlier = json.loads(next(lines, "{}")).get("config", {})
    now = json.loads(json.dumps(asdict(run), default=str))
    for name in sorted(now.keys() - {"name", "parent", "save_every"}):
        if earlier.get(name) != now[name]:
            what = "data" if name == "mixture" else name
            raise ConfigError(
                f"{folder.name} holds a run with another {what}; choose another --out."
            )


def _save(
    run: FineTuning, folder: Path, model: CausalLM, optimizers: Optimizers, step: int,
    origin: Origin,
) -> None:  # fmt: skip
    if run.lora is None:
        save_checkpoint(folder, model, optimizers, step, origin)
        return
    with replacing(folder) as new:
        save_adapter_checkpoint(new, model, run.lora, optimizers, step, origin)


def _report(
    log: MetricsLog, run: FineTuning, at: tuple[int, int], loss: StepLoss, norm: float,
    balance: Balance, started: float,
) -> None:  # fmt: skip
    step, steps = at
    seconds = time.perf_counter() - started
    main, mtp = loss.parts
    rate = run.learning_rate(step, steps)
    log.write({
        "step": step, "loss": round(main, 5), "mtp_loss": round(mtp, 5),
        "grad_norm": round(norm, 4), "lr": round(rate, 5),
        "max_violation": round(balance.max_violation, 3), "dead_experts": balance.dead_experts,
        "trained_tokens": int(loss.counts[0]), "seconds": round(seconds, 3),
    })  # fmt: skip
    log.show(
        step,
        f"{run.name} {step + 1}/{steps}  loss {log.average(main):.4f}  "
        f"{loss.counts[0] / seconds:,.0f} trained tok/s  {log.left(seconds, steps - step - 1)}",
        every=10,
    )
