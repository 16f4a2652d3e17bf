"""The sides of train_throughput.py: a training step here, one of transformers' model, and the
matrix products of a step alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ingle.models import build_model, read_config
from ingle.models.deepseek_v3 import DeepseekV3Config
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.balance import update_router_biases
from ingle.training.checkpoint import load_weights
from ingle.training.data import Document, Mixture, batch_at
from ingle.training.memory import keep_memory
from ingle.training.next_token import NextToken
from ingle.training.opening import can_compile
from ingle.training.optim import OptimConfig, Optimizers
from ingle.training.recipes import FIRST_WEIGHTS
from ingle.training.streams import Streams

TOKENS, STREAMS, LENGTH, LONGEST = 8192, 2, 128, 512
RATE, CLIP = 1e-3, 1.0
READY = 16  # steps whose batches the peer has before the clock starts
CORES = os.cpu_count() or 1
WORKED = Mixture(FIRST_WEIGHTS, chat=False)


@dataclass(frozen=True)
class Rows:
    """The worked examples laid end to end and cut every `length` tokens: no padding anywhere."""

    length: int

    def describes(self) -> str:
        return WORKED.describes()

    def documents(self, rng: random.Random, tokenizer: Tokenizer) -> Iterator[Document]:
        ids: list[int] = []
        for document in WORKED.documents(rng, tokenizer):
            ids += document.tokens
            while len(ids) >= self.length:
                row, ids = ids[: self.length], ids[self.length :]
                yield Document(row, [True] * self.length)


@dataclass(frozen=True)
class How:
    """Settings of the peer. pieces: a step is cut into, gradients added up. kept: glibc keeps freed
    memory, as training/memory.py has it here."""

    compiled: bool = False
    processes: int = 1
    pieces: int = 1
    experts: str = "grouped_mm"
    attention: str = "sdpa"
    packed: bool = False
    kept: bool = False


def algorithm_of(ragged: bool, mtp: bool = False) -> NextToken:
    length = TOKENS // STREAMS
    documents = WORKED if ragged else Rows(LENGTH)
    return NextToken(
        documents, 0, STREAMS, length, LONGEST, 0.3 if mtp else 0.0, length // 8 if mtp else 0
    )


def documents_of(folder: Path, ragged: bool, number: int) -> list[Tensor]:
    """The token ids of every document of a step."""
    tokenizer, source = Tokenizer.load(folder), algorithm_of(ragged)
    found: list[Tensor] = []
    for stream in range(STREAMS):
        draw = number * STREAMS + stream
        batch = batch_at(source.documents, tokenizer, 0, draw, source.length, LONGEST)
        counts = batch.starts_T.unique_consecutive(return_counts=True)[1].tolist()
        found += [ids for ids in batch.tokens_T.split(counts) if len(ids) > 1]  # no padding
    return found


def serve(step: Callable[[int], float], processes: Callable[[], list[int]]) -> None:
    """One step, then as many as every line of the input says; seconds and CPU seconds of a turn."""
    print(json.dumps({"loss": step(0)}), flush=True)
    done = 1
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), cpu_seconds(processes())
        for _ in range(int(line)):
            step(done)
            done += 1
        spent = time.perf_counter() - wall, cpu_seconds(processes()) - cpu
        print(json.dumps({"seconds": spent[0], "cpu": spent[1]}), flush=True)


def cpu_seconds(processes: list[int]) -> float:
    """User and system time of processes so far; 0 where the system does not tell."""
    total = 0
    for pid in processes:
        try:
            after_name = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        except OSError:
            return 0.0
        total += int(after_name[11]) + int(after_name[12])
    return total / os.sysconf("SC_CLK_TCK")


def run_ours(folder: Path, ragged: bool, shipped: bool) -> None:
    """training/loop.py's step; shipped: with MTP, Muon and balanced routers."""
    config = read_config(folder)
    assert isinstance(config, DeepseekV3Config)
    if shipped:
        model = build_model(replace(config, num_nextn_predict_layers=1), 1, "reference").train()
    else:
        model = build_model(config, kernels="reference").train()
        load_weights(folder, model)
    optimizers = Optimizers(model, OptimConfig())
    adam = torch.optim.AdamW(model.parameters(), RATE, fused=True)
    algorithm = algorithm_of(ragged, shipped)
    with Streams(model, algorithm, STREAMS, folder, can_compile(), CORES) as streams:

        def step(number: int) -> float:
            jobs, ahead = ([(n, i) for i in range(STREAMS)] for n in (number, number + 1))
            loss = streams.gradient(jobs, ahead)
            if shipped:
                with streams.resting():
                    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                    optimizers.step(1.0)
                update_router_biases(model, 5e-3)
            else:  # on one thread, as the peer: a second has nothing to gain from AdamW here
                torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                adam.step()
                adam.zero_grad(set_to_none=True)
            return loss.parts[0]

        own = [os.getpid(), *(h.process.pid or 0 for h in streams.helpers)]
        serve(step, lambda: own)


def run_products(folder: Path) -> None:
    """The matrix products of a step, forward and backward, and nothing else.

    A process of one thread for each stream, as in `run_ours`. Every expert has equally many rows.
    """
    others = [start(multiply_when_told, folder) for _ in range(STREAMS - 1)]
    keep_memory()
    torch.set_num_threads(1)
    operands = operands_of(folder)

    def step(number: int) -> float:
        for pipe, _ in others:
            pipe.send(number)
        multiply(operands)
        for pipe, _ in others:
            pipe.recv()
        return 0.0

    serve(step, lambda: [os.getpid(), *(process.pid or 0 for _, process in others)])


def multiply_when_told(folder: Path, pipe: Any) -> None:
    keep_memory()
    torch.set_num_threads(1)
    operands = operands_of(folder)
    with suppress(EOFError):
        while True:
            number = pipe.recv()
            multiply(operands)
            pipe.send(number)


def operands_of(folder: Path) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Input, weight and gradient of the output of each product of a stream."""
    config, rows = read_config(folder), TOKENS // STREAMS
    assert isinstance(config, DeepseekV3Config)
    chosen = rows * config.num_experts_per_tok // config.n_routed_experts
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for name, p in build_model(config, seed=1).named_parameters():
        if p.dim() < 2 or name.endswith("embed_tokens.weight"):
            continue
        m = chosen if p.dim() == 3 else rows
        for weight in p.detach().unbind() if p.dim() == 3 else [p.detach()]:
            out, width = weight.shape
            found.append((torch.randn(m, width), weight, torch.randn(m, out)))
    return found


def multiply(operands: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    for x_MI, weight_OI, _ in operands:
        torch.mm(x_MI, weight_OI.T)
    for x_MI, weight_OI, grad_MO in reversed(operands):
        torch.mm(grad_MO, weight_OI)
        torch.mm(grad_MO.T, x_MI)


def pieces_of(
    folder: Path, ragged: bool, how: How, number: int, rank: int
) -> list[dict[str, Tensor | int]]:
    """A process's share of a step as arguments of the peer's model.

    Rows are filled up at their end, where causal attention needs no mask; packed documents have
    positions that begin anew, from which transformers makes its mask.
    """
    documents = sorted(documents_of(folder, ragged, number), key=len)
    targets = sum(len(ids) - 1 for ids in documents)
    mine, pieces = documents[rank :: how.processes], []
    for i in range(how.pieces):
        some = mine[i * len(mine) // how.pieces : (i + 1) * len(mine) // how.pieces]
        piece: dict[str, Tensor | int] = {"num_items_in_batch": targets}
        if how.packed:
            firsts = [torch.where(torch.arange(len(ids)) > 0, ids, -100) for ids in some]
            piece |= {
                "input_ids": torch.cat(some)[None], "labels": torch.cat(firsts)[None],
                "position_ids": torch.cat([torch.arange(len(ids)) for ids in some])[None],
            }  # fmt: skip
        else:
            padded = torch.nn.utils.rnn.pad_sequence(some, True, -100)
            piece |= {"input_ids": padded.clamp(min=0), "labels": padded}
        pieces.append(piece)
    return pieces


def run_peer(folder: Path, ragged: bool, how: How, rank: int = 0, pipe: Any = None) -> None:
    """transformers' model; with two processes this one is rank 0 and starts rank 1."""
    from transformers import AutoModelForCausalLM

    if how.kept:
        keep_memory()
    torch.set_num_threads(CORES // how.processes)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, experts_implementation=how.experts,
        attn_implementation=how.attention,
    ).train()  # fmt: skip
    model.config.use_cache = False
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, RATE, fused=True)
    other, pids = pipe, [os.getpid()]
    if how.processes > 1:
        if rank == 0:
            other, process = start(run_peer, folder, ragged, how, 1)
            pids.append(process.pid or 0)
        meeting = f"file://{folder}/{os.getppid() if rank else os.getpid()}"
        torch.distributed.init_process_group("gloo", meeting, rank=rank, world_size=how.processes)
        model = torch.nn.parallel.DistributedDataParallel(model)
    forward = torch.compile(model, dynamic=ragged) if how.compiled else model
    ready = [pieces_of(folder, ragged, how, number, rank) for number in range(READY)]

    def step(number: int) -> float:
        total, pieces = 0.0, ready[number % READY]
        for piece in pieces:
            alone = how.processes == 1 or piece is pieces[-1]
            with nullcontext() if alone else model.no_sync():
                loss = forward(**piece).loss
                (loss * how.processes).backward()  # gradients of processes are averaged
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    def both(number: int) -> float:
        if other is None:
            return step(number)
        other.send(number)
        mine = step(number)
        return mine + other.recv()

    if rank == 0:
        serve(both, lambda: pids)
        return
    with suppress(EOFError):
        while True:
            pipe.send(step(pipe.recv()))


def start(target: Callable[..., None], *args: Any) -> tuple[Any, Any]:
    """A process that is given a pipe after its other arguments, and our end of it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*args, theirs), daemon=True)
    process.start()
    theirs.close()
    return ours, process
