"""What `runs/mini.sh` made learns all trained tasks: other words, fine-tuning, reinforcement.

    python runs/grow.py [--parent out/mini-sft] [--out out/grow] [--deepen 4000] [--polish 3800]
                          [--reinforce 120]

Interrupt and run again: each stage goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ingle.tasks import TRAINED
from ingle.training.loop import train
from ingle.training.recipes import learn_run, reinforce_run, settle_run
from ingle.training.reinforcement.grpo import train_grpo
from ingle.training.vocabulary import exchange_words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parent", type=Path, default=Path("out/mini-sft"))
    parser.add_argument("--out", type=Path, default=Path("out/grow"))
    parser.add_argument("--learn", type=int, default=1200, help="steps at a constant rate")
    parser.add_argument("--settle", type=int, default=3500, help="steps decaying to zero")
    parser.add_argument("--deepen", type=int, default=4000, help="the same once more")
    parser.add_argument("--polish", type=int, default=3800, help="and once more")
    parser.add_argument("--reinforce", type=int, default=120, help="steps of GRPO")
    args = parser.parse_args()
    words, learned, settled, deep, polished, reinforced = (
        args.out / name for name in ("words", "learn", "settle", "deepen", "polish", "reinforce")
    )
    if not (words / "model.safetensors").exists():
        exchange_words(args.parent, words, TRAINED)
    train(learn_run(words, args.learn), learned)
    train(settle_run(learned, args.settle), settled)
    train(settle_run(settled, args.deepen, seed=5), deep)
    train(settle_run(deep, args.polish, seed=6), polished)
    train_grpo(reinforce_run(polished, args.reinforce), reinforced)


if __name__ == "__main__":
    main()
