"""Training throughput on one GPU against transformers' DeepseekV3ForCausalLM, as shares of its GEMM
rate.

    python bench/train_throughput_gpu.py [PRESET ...] [--tokens 65536] [--rounds 7] [--json]

As train_throughput.py says, on a GPU: the same fp32 weights of a preset without its MTP module, the
same tokens, in documents of 128 so that the peer needs no padding, and a full step of forward,
backward, clipping and fused AdamW. Products are bf16, weights and their updates fp32: here by a
rounded second model (parallel/gpu.py), there by torch.autocast. The peer runs eager, compiled, and
compiled with weights and optimiser in bf16 too, which is less than what we do; the fastest of those
that keep fp32 weights is the peer, the last is printed beside it. Our batches are drawn while it
runs, the peer's lie on the GPU before the clock starts.

Sides take turns of `--steps` steps between two synchronisations. Work of a step is counted as in
train_throughput.py and divided by the rate of an 8192-cubed bf16 product, measured every round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from compare import excess
from torch import Tensor
from train_sides import CLIP, LENGTH, RATE, WORKED, Rows

from ingle.models import build_model, save_model
from ingle.models.deepseek_v3 import DeepseekV3Config
from ingle.parallel.gpu import GpuStreams, OnGpu, check_gpu
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.data import batch_at
from ingle.training.loop import Run
from ingle.training.next_token import NextToken
from ingle.training.opening import write_tokenizer
from ingle.training.presets import model_preset

Step = Callable[[], float]
READY = 8  # steps whose batches the peer has before the clock starts
AHEAD = 16  # steps whose batches may be drawn before their turn


@dataclass(frozen=True)
class How:
    """Settings of the peer. rounded: weights and optimiser are bf16."""

    compiled: bool
    rounded: bool = False


PEERS = {"eager": How(False), "compiled": How(True), "compiled, bf16 weights": How(True, True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=["tiny"])
    parser.add_argument("--tokens", type=int, default=65536, help="of a step")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="steps of a turn")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    check_gpu()
    found = {preset: compare(preset, args) for preset in args.presets}
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        for preset, facts in found.items():
            show(preset, facts, args)


def compare(preset: str, args: argparse.Namespace) -> dict[str, Any]:
    """Every side makes two steps, then all take turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = replace(model_preset(preset), num_nextn_predict_layers=0)
        save_model(build_model(config, seed=1), folder, torch.float32)
        write_tokenizer(Run("bench", config, WORKED, steps=1), folder)
        algorithm = NextToken(Rows(LENGTH), 0, 1, args.tokens, LENGTH, 0.0, 0)
        streams, ours = our_step(folder, algorithm, config)
        with streams:
            sides: dict[str, Step] = {"ours": ours}
            for label, how in PEERS.items():
                sides[label] = peer_step(folder, algorithm, how)
            losses = {}
            for label in list(sides):
                try:
                    losses[label] = sides[label]()
                    sides[label]()
                except Exception as error:  # a setting the peer does not have on this GPU
                    print(f"{label}: {type(error).__name__}: {str(error)[:300]}")
                    del sides[label]
            rounds = measure(sides, args)
    work = work_of(config, args.tokens)
    whole = [label for label in sides if label != "ours" and not PEERS[label].rounded]
    times = {label: [turn[label] for turn in rounds] for label in sides}
    best = min(whole, key=lambda label: statistics.median(times[label]))
    assert abs(losses["ours"] - losses[best]) < 1e-2, losses
    ratios = {
        label: [1 + x for x in excess(times[label], times["ours"])]
        for label in sides if label != "ours"
    }  # fmt: skip
    return {
        "peer": best, "ratios": ratios, "losses": losses, "rounds": rounds, "work": work,
        "memory": torch.cuda.max_memory_allocated(),
    }  # fmt: skip


def our_step(
    folder: Path, algorithm: NextToken, config: DeepseekV3Config
) -> tuple[GpuStreams, Step]:
    """A step as training/loop.py makes it, with AdamW."""
    layout = OnGpu(build_model(config, seed=1, kernels="reference").train(), "bf16")
    adam = torch.optim.AdamW(layout.model.parameters(), RATE, fused=True)
    streams = GpuStreams(layout, algorithm, folder, True, 8)
    done = 0

    def step() -> float:
        nonlocal done
        loss = streams.gradient([(done, 0)], [(s, 0) for s in range(done + 1, done + AHEAD)])
        done += 1
        layout.clip(CLIP)
        adam.step()
        adam.zero_grad(set_to_none=True)
        return loss.parts[0]

    return streams, step


def peer_step(folder: Path, algorithm: NextToken, how: How) -> Step:
    """A step of transformers' model on the same rows."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16 if how.rounded else torch.float32,
        experts_implementation="grouped_mm", attn_implementation="sdpa",
    ).cuda().train()  # fmt: skip
    model.config.use_cache = False
    parameters = list(model.parameters())
    adam = torch.optim.AdamW(parameters, RATE, fused=True)
    forward = torch.compile(model, dynamic=False) if how.compiled else model
    ready = [rows_of(folder, algorithm, step) for step in range(READY)]
    done = 0

    def step() -> float:
        nonlocal done
        ids = ready[done % READY]
        done += 1
        with torch.autocast("cuda", torch.bfloat16, enabled=not how.rounded):
            loss = forward(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        adam.step()
        adam.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def rows_of(folder: Path, algorithm: NextToken, step: int) -> Tensor:
    """The documents of a step, one a row, on the GPU."""
    tokenizer = Tokenizer.load(folder)
    batch = batch_at(algorithm.documents, tokenizer, 0, step, algorithm.length, LENGTH)
    return batch.tokens_T.view(-1, LENGTH).cuda()


def measure(sides: dict[str, Step], args: argparse.Namespace) -> list[dict[str, float]]:
    """Each round: the GEMM rate, then seconds of a step of every side."""
    rounds = []
    for _ in range(args.rounds):
        turn = {"gemm": gemm_rate()}
        for label, step in sides.items():
            torch.cuda.synchronize()
            started = time.perf_counter()
            for _ in range(args.steps):
                step()
            torch.cuda.synchronize()
            turn[label] = (time.perf_counter() - started) / args.steps
        rounds.append(turn)
    return rounds


def gemm_rate(side: int = 8192) -> float:
    """FLOP/s of a square bf16 product, the best of ten."""
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        torch.mm(a, b)
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end) / 1e3)
    return 2 * side**3 / best


def work_of(c: DeepseekV3Config, tokens: int) -> float:
    """FLOPs of a step, by the formula of train_throughput.py."""
    per_token = 0.0
    for name, p in build_model(c).named_parameters():
        if p.dim() == 3:  # routed experts
            per_token += 6 * p.numel() * c.num_experts_per_tok / c.n_routed_experts
        elif p.dim() == 2 and not name.endswith("embed_tokens.weight"):
            per_token += 6 * p.numel()
    pair = 6 * c.num_hidden_layers * c.num_attention_heads * (c.qk_head_dim + c.v_head_dim)
    return tokens * per_token + tokens // LENGTH * pair * LENGTH * (LENGTH + 1) / 2


def show(preset: str, facts: dict[str, Any], args: argparse.Namespace) -> None:
    rounds = facts["rounds"]
    gemm = statistics.median(turn["gemm"] for turn in rounds)
    print(f"{preset}: {args.tokens:,} tokens a step on {torch.cuda.get_device_name()}, bf16 GEMM "
          f"{gemm / 1e12:.0f} TFLOP/s; losses {facts['losses']}")  # fmt: skip
    for label in [label for label in rounds[0] if label != "gemm"]:
        seconds = statistics.median(turn[label] for turn in rounds)
        share = statistics.median(facts["work"] / turn[label] / turn["gemm"] for turn in rounds)
        print(f"  {label:24} {args.tokens / seconds:11,.0f} tokens/s  {share:6.1%} of GEMM"
              f"  {1e3 * seconds:7.1f} ms")  # fmt: skip
    for label, (ratio, low, high) in facts["ratios"].items():
        mark = "  <- the peer" if label == facts["peer"] else ""
        print(f"  ours over {label}: {ratio:.2f} (95 % {low:.2f} to {high:.2f}){mark}")


if __name__ == "__main__":
    main()
