"""The reasoner of 15 million parameters from nothing, on one GPU.

    python runs/tiny.py [--pretrain 3000] [--sft 8000] [--out out/tiny]

Pre-training on worked examples, then fine-tuning on chats with a rate that decays to zero, of all
trained tasks; 32,768 tokens a step. Interrupt and run again: each stage goes on from its last
checkpoint. Reinforcement after it is `ingle grpo out/tiny/sft`, on the CPU.

Not run to the end yet: 60 steps of it were, at 449,000 tokens/s on an H200 (docs/log.md).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ingle.training.loop import train
from ingle.training.recipes import on_gpu, pretrain_run, sft_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/tiny"))
    parser.add_argument("--pretrain", type=int, default=3000, help="steps at a constant rate")
    parser.add_argument("--sft", type=int, default=8000, help="steps with a decaying rate")
    parser.add_argument("--save-every", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    first = on_gpu(pretrain_run("tiny", args.pretrain, args.seed, "trained"))
    train(replace(first, save_every=args.save_every), args.out / "pretrain")
    second = on_gpu(sft_run("tiny", args.out / "pretrain", args.sft, args.seed + 1, "trained"))
    train(replace(second, save_every=args.save_every), args.out / "sft")


if __name__ == "__main__":
    main()
