"""Training throughput here against transformers' DeepseekV3ForCausalLM, as shares of the GEMM rate.

    pip install -e '.[dev]'
    python bench/train_throughput.py [PRESET ...] [--rounds 5] [--steps 2] [--ragged] [--json]

Both sides start from the same fp32 weights of a preset without its MTP module, and take the same
tokens through a full step: forward, backward, clipping, one update by torch's fused AdamW. Before
anything is timed their losses must agree within 1e-4. Documents all have 128 tokens, so that rows
of a batch need no padding, which is the peer's best case; with --ragged they are worked examples as
long as they come, and the peer pads rows of like length or packs. Only real tokens count as work.

The peer runs at its best settings. They are found one after the other, keeping what is faster:
torch.compile, two processes of one thread (DistributedDataParallel over gloo) instead of one of all
threads, smaller pieces with accumulated gradients, expert implementation, attention, packing (with
the positions that make transformers mask documents from each other). Its batches are ready before
the clock starts; ours are drawn while it runs. Here a step is what training/loop.py does: compiled,
a process of one thread for each of two streams. A third row is that loop as shipped, with the MTP
loss on an eighth of the tokens, Muon and balanced routers; MTP is then no work that counts.

Work of a step, in FLOPs, is what the mathematics needs, whatever either side computes besides:

    sum over documents of L tokens:  6 L P + 3 layers heads (Q + V) L (L + 1)

P are the parameters a token is multiplied with: all matrices (attention, router, shared and
*chosen* experts, dense layers, head) but the embedding, which is looked up; 6 is 2 forward and 4 backward.
The second term is causal attention, scores of width Q and values of width V over the L (L + 1) / 2
pairs that see each other, 2 FLOPs each forward and 4 backward. Norms, rotation, softmax and the
optimiser count as nothing. The rate is divided by that of a 2048-cubed fp32 product on all threads,
the best of eight, measured in every round just before the sides take their turns.

Sides run in turn in living processes, one at a time. Beside the wall clock stands CPU time, which
another program on the machine lengthens less.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from compare import excess
from torch import Tensor

from ingle.models import build_model, read_config, save_model
from ingle.models.deepseek_v3 import DeepseekV3Config
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.balance import update_router_biases
from ingle.training.checkpoint import load_weights
from ingle.training.data import Document, Mixture, batch_at
from ingle.training.loop import Run, can_compile, write_tokenizer
from ingle.training.next_token import NextToken
from ingle.training.optim import OptimConfig, Optimizers
from ingle.training.presets import model_preset
from ingle.training.recipes import TASK_WEIGHTS
from ingle.training.streams import Streams

TOKENS, STREAMS, LENGTH, LONGEST = 8192, 2, 128, 512
RATE, CLIP = 1e-3, 1.0
READY = 16  # steps whose batches the peer has before the clock starts
CORES = os.cpu_count() or 1
WORKED = Mixture(TASK_WEIGHTS, chat=False)


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
    """Settings of the peer. pieces: a step is cut into, gradients added up."""

    compiled: bool = False
    processes: int = 1
    pieces: int = 1
    experts: str = "grouped_mm"
    attention: str = "sdpa"
    packed: bool = False


SEARCH: list[tuple[str, tuple]] = [
    ("compiled", (True,)), ("processes", (2,)), ("pieces", (2, 4)),
    ("experts", ("eager", "batched_mm")), ("attention", ("eager",)), ("packed", (True,)),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=["nano", "mini", "tiny"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn")
    parser.add_argument("--ragged", action="store_true", help="documents as long as they come")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=("ours", "shipped", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--how", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        how = How(**json.loads(args.how))
        if args.side == "peer":
            run_peer(args.folder, args.ragged, how)
        else:
            run_ours(args.folder, args.ragged, args.side == "shipped")
        return
    torch.set_num_threads(CORES)
    found = {preset: compare(preset, args) for preset in args.presets}
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        for preset, facts in found.items():
            show(preset, facts)
        print(bf16_support())


def compare(preset: str, args: argparse.Namespace) -> dict[str, Any]:
    """Find the peer's best settings, then measure the sides in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = replace(model_preset(preset), num_nextn_predict_layers=0)
        save_model(build_model(config, seed=1), folder, torch.float32)
        write_tokenizer(Run("bench", config, WORKED, steps=1), folder)
        best, tried = search(folder, args)
        work, tokens = work_of(config, folder, args.ragged, args.steps * args.rounds)
        workers = {side: Worker(side, folder, args, best) for side in ("ours", "peer", "shipped")}
        try:
            difference = abs(workers["ours"].loss - workers["peer"].loss)
            assert difference < 1e-4, f"the losses of both sides differ by {difference}"
            rounds = measure(workers, args, work, tokens)
        finally:
            for worker in workers.values():
                worker.end()
    ratio, low, high = (
        1 + x for x in excess(*([r[side]["seconds"] for r in rounds] for side in ("peer", "ours")))
    )
    cpu = statistics.median(r["peer"]["cpu"] / r["ours"]["cpu"] for r in rounds)
    return {
        "ratio": ratio, "interval": [low, high], "cpu_ratio": cpu,
        "ratios": [r["peer"]["seconds"] / r["ours"]["seconds"] for r in rounds],
        "loss_difference": difference, "loss": workers["ours"].loss, "peer_settings": asdict(best),
        "peer_tries": tried, "rounds": rounds,
    }  # fmt: skip


def search(folder: Path, args: argparse.Namespace) -> tuple[How, list[dict[str, Any]]]:
    """The peer's settings, one after the other, each kept if it makes a step shorter."""
    tried: list[dict[str, Any]] = []

    def attempt(how: How) -> float:
        seconds = float("inf")
        try:
            worker = Worker("peer", folder, args, how)
            seconds = min(worker.steps(1)["seconds"] for _ in range(3))
            worker.end()
        except RuntimeError as error:
            print(f"{how}: {str(error).splitlines()[-1][:200]}", file=sys.stderr)
        print(f"{seconds:8.3f} s  {how}", file=sys.stderr)
        tried.append(asdict(how) | {"seconds": seconds})
        return seconds

    best = How()
    least = attempt(best)
    for field, values in SEARCH:
        start = best
        for value in values:
            how = replace(start, **{field: value})
            if (seconds := attempt(how)) < least:
                best, least = how, seconds
    return best, tried


def measure(
    workers: dict[str, Worker], args: argparse.Namespace, work: list[float], tokens: list[int]
) -> list[dict[str, Any]]:
    """Each round: the GEMM rate, then every side a turn of the same steps."""
    rounds: list[dict[str, Any]] = []
    for number in range(args.rounds):
        turn: dict[str, Any] = {"gemm": gemm_rate()}
        mine = slice(number * args.steps, (number + 1) * args.steps)
        for side, worker in workers.items():
            spent = worker.steps(args.steps)
            turn[side] = spent | {
                "tokens_per_second": sum(tokens[mine]) / spent["seconds"],
                "share": sum(work[mine]) / spent["seconds"] / turn["gemm"],
            }
        rounds.append(turn)
    return rounds


class Worker:
    """A side in a process of its own that has made one step and then waits to be told how many."""

    def __init__(self, side: str, folder: Path, args: argparse.Namespace, how: How) -> None:
        command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
        command += ["--how", json.dumps(asdict(how))] + ["--ragged"] * args.ragged
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, preexec_fn=limit_memory,
        )  # fmt: skip
        self.loss: float = self.receive()["loss"]

    def steps(self, count: int) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return self.receive()

    def receive(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                found: dict[str, float] = json.loads(line)
                return found
        assert self.process.stderr is not None
        raise RuntimeError(self.process.stderr.read().strip() or "ended without a word")

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def limit_memory() -> None:
    """An expert implementation that copies weights for every token must fail, not the machine."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (int(0.7 * free), int(0.7 * free)))


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


def algorithm_of(ragged: bool, mtp: bool = False) -> NextToken:
    length = TOKENS // STREAMS
    documents = WORKED if ragged else Rows(LENGTH)
    return NextToken(
        documents, 0, STREAMS, length, LONGEST, 0.3 if mtp else 0.0, length // 8 if mtp else 0
    )


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
            loss = streams.gradient([(number, stream) for stream in range(STREAMS)])
            with streams.resting():
                torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                if shipped:
                    optimizers.step(1.0)
                else:
                    adam.step()
                    adam.zero_grad(set_to_none=True)
            if shipped:
                update_router_biases(model, 5e-3)
            return loss.parts[0]

        own = [os.getpid(), *(h.process.pid or 0 for h in streams.helpers)]
        serve(step, lambda: own)


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


def work_of(
    config: DeepseekV3Config, folder: Path, ragged: bool, steps: int
) -> tuple[list[float], list[int]]:
    """FLOPs, by the formula above, and real tokens of each timed step."""
    c, model = config, build_model(config)
    per_token = 0.0
    for name, p in model.named_parameters():
        if p.dim() == 3:  # routed experts
            per_token += 6 * p.numel() * c.num_experts_per_tok / c.n_routed_experts
        elif p.dim() == 2 and not name.endswith("embed_tokens.weight"):
            per_token += 6 * p.numel()
    pair = 6 * c.num_hidden_layers * c.num_attention_heads * (c.qk_head_dim + c.v_head_dim)
    lengths = [[len(d) for d in documents_of(folder, ragged, s + 1)] for s in range(steps)]
    work = [sum(n * per_token + pair * n * (n + 1) / 2 for n in some) for some in lengths]
    return work, [sum(some) for some in lengths]


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
            other, process = start_other(folder, ragged, how)
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


def start_other(folder: Path, ragged: bool, how: How) -> tuple[Any, Any]:
    """Rank 1 and the pipe to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run_peer, args=(folder, ragged, how, 1, theirs), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def gemm_rate(side: int = 2048) -> float:
    """FLOP/s of a square fp32 product on all threads, the best of eight."""
    a, b, best = torch.randn(side, side), torch.randn(side, side), float("inf")
    for _ in range(8):
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def bf16_support() -> str:
    """Whether a comparison in bf16 would mean anything on this processor."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text("utf-8").split())
    except OSError:
        return "fp32 only; this system does not say whether its processor has bf16 arithmetic"
    if found := flags & {"avx512_bf16", "amx_bf16"}:
        return f"fp32 only, though this processor has bf16 arithmetic ({', '.join(sorted(found))})"
    return "fp32 only: this processor has no bf16 arithmetic (neither avx512_bf16 nor amx_bf16)"


def show(preset: str, facts: dict[str, Any]) -> None:
    """Medians over rounds of every side, and the ratio with its interval and range."""
    rounds, settings = facts["rounds"], facts["peer_settings"]
    print(f"{preset}: {TOKENS:,} positions a step, losses {facts['loss']:.4f} and differ by "
          f"{facts['loss_difference']:.0e}; fp32 GEMM "
          f"{statistics.median(r['gemm'] for r in rounds) / 1e9:.0f} GFLOP/s")  # fmt: skip
    print(f"  {'':10} {'tokens/s':>9} {'of GEMM':>8}  range of rounds   CPU s / wall s")
    for side in ("ours", "peer", "shipped"):
        speeds = [r[side]["tokens_per_second"] for r in rounds]
        share = statistics.median(r[side]["share"] for r in rounds)
        busy = statistics.median(r[side]["cpu"] / r[side]["seconds"] for r in rounds)
        spread = f"{min(speeds):,.0f} to {max(speeds):,.0f}"
        print(
            f"  {side:10} {statistics.median(speeds):9,.0f} {share:8.1%}  {spread:17} {busy:4.2f}"
        )
    low, high = facts["interval"]
    print(f"  ratio {facts['ratio']:.2f} (95 % {low:.2f} to {high:.2f}; rounds "
          f"{min(facts['ratios']):.2f} to {max(facts['ratios']):.2f}); in CPU time "
          f"{facts['cpu_ratio']:.2f}; peer: {settings}")  # fmt: skip


if __name__ == "__main__":
    main()
