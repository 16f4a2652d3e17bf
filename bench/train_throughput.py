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
threads, a C library that keeps freed memory as it does here, smaller pieces with accumulated
gradients, expert implementation, attention, packing (with the positions that make transformers mask
documents from each other). Its batches are ready before the clock starts; ours are drawn while it
runs. Here a step is what training/loop.py does: compiled, a process of one thread for each of two
streams. A third row is that loop as shipped, with the MTP loss on an eighth of the tokens, Muon and
balanced routers; MTP is then no work that counts. The fourth is the matrix products of a step
alone, by torch.mm in their own shapes, a process of one thread for each stream: a step in which
attention, norms, routing, loss and optimiser cost nothing. How much faster than the peer that is,
is printed as the bound: no ratio above it is to be had with torch's products. Ours are partly of
our own (kernels/native/panels.h).

Work of a step, in FLOPs, is what the mathematics needs, whatever either side computes besides:

    sum over documents of L tokens:  6 L P + 3 layers heads (Q + V) L (L + 1)

P are the parameters a token is multiplied with: all matrices (attention, router, shared experts and
the chosen ones, dense layers, head) without the embedding, which is looked up; 6 is 2 forward and
4 backward. The second term is causal attention, scores of width Q and values of width V over the
L (L + 1) / 2 pairs that see each other, 2 FLOPs each forward and 4 backward. Norms, rotation,
softmax and the optimiser count as nothing. The rate is divided by that of a 2048-cubed fp32 product
on all threads, the best of eight, measured in every round just before the sides take their turns.

Sides run in turn in living processes, one at a time. Beside the wall clock stands CPU time, which
another program on the machine lengthens less.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from compare import excess
from train_sides import CORES, TOKENS, WORKED, How, documents_of, run_ours, run_peer, run_products

from ingle.models import build_model, save_model
from ingle.models.deepseek_v3 import DeepseekV3Config
from ingle.training.loop import Run
from ingle.training.opening import write_tokenizer
from ingle.training.presets import model_preset

SIDES = ("ours", "peer", "shipped", "products")
SEARCH: list[tuple[str, tuple]] = [
    ("compiled", (True,)), ("processes", (2,)), ("kept", (True,)), ("pieces", (2, 4)),
    ("experts", ("eager", "batched_mm")), ("attention", ("eager",)), ("packed", (True,)),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=["nano", "mini", "tiny"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn")
    parser.add_argument("--ragged", action="store_true", help="documents as long as they come")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--how", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        how = How(**json.loads(args.how))
        if args.side == "peer":
            run_peer(args.folder, args.ragged, how)
        elif args.side == "products":
            run_products(args.folder)
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
        workers = {side: Worker(side, folder, args, best) for side in SIDES}
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
    bound = statistics.median(r["peer"]["seconds"] / r["products"]["seconds"] for r in rounds)
    return {
        "ratio": ratio, "interval": [low, high], "cpu_ratio": cpu, "bound": bound,
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
    for side in SIDES:
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
          f"{facts['cpu_ratio']:.2f}; bound {facts['bound']:.2f}\n  peer: {settings}")  # fmt: skip


if __name__ == "__main__":
    main()
