"""R1-Zero in small: reinforcement learning straight from a raw base, and with a cold start first.

    python runs/r1_zero.py [--steps 150] [-n 60]

The base is `nano`, pre-trained on plain text: half of it answers at once, half works it out.
R1-Zero: GRPO on questions in that plain form; nothing ever showed the base which half is better.
R1's way: a short fine-tuning on chats that all think (the cold start), then the same GRPO. All four
models answer the same fresh problems, each in the form it knows. The table says how often they
think: whether a raw base finds out by itself that thinking pays. Interrupt and run again: every
part goes on from what is finished.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ingle.engine.request import SamplingParams
from ingle.models import load_model
from ingle.prompt.deepseek_r1 import DeepSeekR1
from ingle.prompt.tokenizer import Tokenizer
from ingle.statistics import mean_of_estimates
from ingle.tasks import verify
from ingle.training.data import Mixture, raw_prompt
from ingle.training.evaluation.evaluate import fresh_problems
from ingle.training.evaluation.passes import mean_pass
from ingle.training.loop import train
from ingle.training.recipes import grpo_run, pretrain_run, sft_run
from ingle.training.reinforcement.grpo import train_grpo
from ingle.training.reinforcement.rollout import Sampler, read_reply

TASKS = ("sums", "gcd", "sorting", "spell_backward", "letter_counting", "countdown")
LEVELS = (1, 2, 3)
LIMIT = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-steps", type=int, default=400)
    parser.add_argument("--cold-steps", type=int, default=40)
    parser.add_argument("--steps", type=int, default=150, help="of each reinforcement")
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("-n", type=int, default=60, help="fresh problems of a task")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("out/zero"))
    args = parser.parse_args()
    weights = dict.fromkeys(TASKS, 1.0)
    base, zero, cold, both = (args.out / name for name in ("base", "zero", "cold", "cold-rl"))

    plain = pretrain_run("nano", args.base_steps)
    train(replace(plain, mixture=Mixture(weights, chat=False, hasty=0.5)), base)
    reinforce(base, zero, raw=True, args=args)
    chats = sft_run("nano", base, args.cold_steps)
    train(replace(chats, mixture=Mixture(weights, chat=True)), cold)
    reinforce(cold, both, raw=False, args=args)

    found = {
        "raw base": measured(base, True, args), "R1-Zero: base, GRPO": measured(zero, True, args),
        "cold start": measured(cold, False, args), "cold start, GRPO": measured(both, False, args),
    }  # fmt: skip
    print(table(found, args))


def reinforce(parent: Path, folder: Path, raw: bool, args: argparse.Namespace) -> None:
    run = grpo_run(parent, "small", args.steps, 0, TASKS, LEVELS, args.rate)
    train_grpo(replace(run, group=16, limit=LIMIT, raw=raw), folder)


def measured(folder: Path, raw: bool, args: argparse.Namespace) -> dict[str, Any]:
    """The folder's exam, from its file where it has been taken."""
    file = args.out / f"exam-{folder.name}.json"
    if not file.exists():
        file.write_text(json.dumps(exam(folder, raw, args)) + "\n", "utf-8")
    taken: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return taken


def exam(folder: Path, raw: bool, args: argparse.Namespace) -> dict[str, Any]:
    """Of each task the right samples of each problem; how often the model thought, and how long
    its replies were."""
    tokenizer = Tokenizer.load(folder)
    model = load_model(folder, torch.float32)
    sampler = Sampler(model, 64, LIMIT, 128, (tokenizer.eos_id,))
    tasks: dict[str, list[int]] = {}
    thoughts, lengths = [], []
    for task in TASKS:
        problems = fresh_problems(task, args.n, 17, LEVELS)
        prompts = [
            raw_prompt(p.question, tokenizer) if raw
            else DeepSeekR1().encode([{"role": "user", "content": p.question}], tokenizer)
            for p in problems
        ]  # fmt: skip
        rng = random.Random(f"exam:{task}")
        seeds = [[rng.getrandbits(31) for _ in range(args.samples)] for _ in prompts]
        found = sampler.sample(prompts, seeds, SamplingParams())
        tasks[task] = []
        for problem, group in zip(problems, found, strict=True):
            replies = [read_reply(one.tokens, tokenizer) for one in group]
            thoughts += [bool(reply.reasoning.strip()) for reply in replies]
            lengths += [len(one.tokens) for one in group]
            verdicts = [verify(problem, reply.answer or "").score >= 1.0 for reply in replies]
            tasks[task].append(sum(verdicts))
    return {
        "tasks": tasks, "thinks": sum(thoughts) / len(thoughts),
        "tokens": sum(lengths) / len(lengths),
    }  # fmt: skip


def table(found: dict[str, dict[str, Any]], args: argparse.Namespace) -> str:
    k = args.samples
    lines = [
        f"{args.n} fresh problems of each task, {k} answers each at temperature 1; percent",
        "",
        f"| Model | pass@1 (95 %) | pass@{k} | thinks | tokens | {' | '.join(TASKS)} |",
        "|---" * (5 + len(TASKS)) + "|",
    ]
    for name, one in found.items():
        counts = [[(k, hits) for hits in one["tasks"][task]] for task in TASKS]
        first = mean_of_estimates([mean_pass(some, 1) for some in counts])
        most = mean_of_estimates([mean_pass(some, k) for some in counts])
        rates = [100 * mean_pass(some, 1).value for some in counts]
        lines.append(
            f"| {name} | {100 * first.value:.1f} ({100 * first.low:.1f} to {100 * first.high:.1f}) "
            f"| {100 * most.value:.1f} | {100 * one['thinks']:.1f} | {one['tokens']:.0f} | "
            f"{' | '.join(f'{rate:.1f}' for rate in rates)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
