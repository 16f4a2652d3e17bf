"""Wall time until reinforcement learning has gained ten points of reward, here and with TRL.

    pip install -e '.[peers]'
    python runs/grpo.py --seeds 0                   # makes a start with room to learn
    python bench/grpo_to_reward.py out/grpo/start [--seeds 0 1 2] [--steps 60] [--json]

Same weights, questions in the same order, reward (the verifier's verdict), loss ("dapo"), AdamW and
sampling at temperature 1, replies that end when they like within `--tokens`. The start's own reward
is measured first; a side is done once a moving average over about ten steps is ten points above it.
Sides run in turn, each in a process of its own with all cores, TRL set up as in grpo_vs_trl.py.
Seconds count from the first step, which compiles here; the time before it (imports, loading) and
after the last stands beside.
What each side asks of a machine is printed too: packages and megabytes that pip installs for it.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from grpo_vs_trl import GROUP, PROMPTS, export, logit_difference

RATE, GAIN, MEMORY = 5e-5, 0.10, 0.9  # of the moving average, a step weighs 1 - MEMORY
TASKS = ("sums", "gcd", "base_conversion", "countdown")
LEVEL = 4
SIDES = {"ingle": "ingle", "trl": "trl"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--steps", type=int, default=60, help="at most")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=384)
    parser.add_argument("--experts", default="grouped_mm", help="TRL's fastest: grpo_vs_trl.py")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        run = {"ingle": run_ingle, "trl": run_trl}[args.side]
        print(json.dumps(run(args.model, args.seed, args.steps, args.tokens, args.experts)))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        export(str(args.model), folder)
        assert logit_difference(folder) < 1e-4
        start = start_reward(folder, args.tokens)
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for seed in args.seeds:
            for side in SIDES:
                found[side].append(one_run(folder, side, seed, start, args))
                print(side, seed, found[side][-1]["to_gain"], file=sys.stderr)
    facts = {"start": start, "runs": found, "install": {s: footprint(s) for s in SIDES.values()}}
    print(json.dumps(facts, indent=2) if args.json else report(facts))


def one_run(
    folder: Path, side: str, seed: int, start: float, args: argparse.Namespace
) -> dict[str, Any]:
    command = [sys.executable, __file__, str(folder), "--side", side, "--seed", str(seed)]
    command += ["--steps", str(args.steps), "--tokens", str(args.tokens), "--experts", args.experts]
    began = time.perf_counter()
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        raise SystemExit(made.stderr[-2000:])
    steps = json.loads(made.stdout.splitlines()[-1])
    seconds, rewards = [s["seconds"] for s in steps], [s["reward"] for s in steps]
    return {
        "to_gain": seconds_to_gain(seconds, rewards, start),
        "before": time.perf_counter() - began - seconds[-1],
        "seconds": seconds, "rewards": rewards,
    }  # fmt: skip


def seconds_to_gain(seconds: list[float], rewards: list[float], start: float) -> float:
    """When the moving average, which begins at the start's reward, is GAIN above it; inf for
    never."""
    average = start
    for when, reward in zip(seconds, rewards, strict=True):
        average = MEMORY * average + (1 - MEMORY) * reward
        if average >= start + GAIN:
            return when
    return math.inf


def report(facts: dict[str, Any]) -> str:
    lines = [f"reward of the start {facts['start']:.3f}; seconds until {GAIN:.2f} more"]
    medians = {}
    for side, runs in facts["runs"].items():
        times = [run["to_gain"] for run in runs]
        medians[side] = statistics.median(times)
        before = statistics.median(run["before"] for run in runs)
        step = statistics.median(run["seconds"][-1] / len(run["seconds"]) for run in runs)
        place = facts["install"][SIDES[side]]
        lines.append(
            f"{side:>6}: {medians[side]:.0f} s ({', '.join(f'{t:.0f}' for t in times)}), "
            f"{before:.0f} s before the first step and after the last, a step {step:.1f} s; "
            f"{place['packages']} packages, {place['megabytes']:.0f} MB"
        )
    return "\n".join([*lines, f"ratio {medians['trl'] / medians['ingle']:.2f}"])


def questions(seed: int, steps: int) -> list[list[Any]]:
    """The problems of every step."""
    from ingle.tasks import sample

    rng = random.Random(f"to reward:{seed}")
    return [
        [sample(rng, rng.choice(TASKS), LEVEL, "train") for _ in range(PROMPTS)]
        for _ in range(steps)
    ]


def encoded(problems: list[Any], folder: Path) -> list[list[int]]:
    from ingle.prompt.deepseek_r1 import DeepSeekR1
    from ingle.prompt.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder)
    return [
        DeepSeekR1().encode([{"role": "user", "content": p.question}], tokenizer) for p in problems
    ]


def verdict(problem: Any, ids: list[int], tokenizer: Any) -> float:
    """1 for a right answer; what was cut off is wrong."""
    from ingle.tasks import verify
    from ingle.training.reinforcement.rollout import read_reply

    if not ids or ids[-1] != tokenizer.eos_id:
        return 0.0
    return float(verify(problem, read_reply(ids, tokenizer).answer or "").score >= 1.0)


def start_reward(folder: Path, tokens: int) -> float:
    """Mean verdict of the untrained start on the questions of four steps of another seed."""
    import torch

    from ingle.engine.request import SamplingParams
    from ingle.models import load_model
    from ingle.prompt.tokenizer import Tokenizer
    from ingle.training.reinforcement.rollout import Sampler

    tokenizer = Tokenizer.load(folder)
    sampler = Sampler(
        load_model(folder, torch.float32), PROMPTS * GROUP, tokens, 128, (tokenizer.eos_id,)
    )
    marks = []
    for step, problems in enumerate(questions(-1, 4)):
        seeds = [[step * 10_000 + p * 100 + g for g in range(GROUP)] for p in range(PROMPTS)]
        found = sampler.sample(encoded(problems, folder), seeds, SamplingParams())
        for problem, group in zip(problems, found, strict=True):
            marks += [verdict(problem, one.tokens, tokenizer) for one in group]
    return statistics.mean(marks)


def run_ingle(folder: Path, seed: int, steps: int, tokens: int, _: str) -> list[dict[str, float]]:
    """train_grpo's two halves on the listed questions."""
    import torch

    from ingle.engine.request import SamplingParams
    from ingle.models import build_model, read_config
    from ingle.prompt.tokenizer import Tokenizer
    from ingle.training.checkpoint import load_weights
    from ingle.training.data import PAD
    from ingle.training.optim import OptimConfig, Optimizers
    from ingle.training.reinforcement.objectives import (
        advantages,
        informative,
        objective_preset,
        token_weights,
    )
    from ingle.training.reinforcement.policy import Lesson, Policy, pack_lessons
    from ingle.training.reinforcement.rollout import Sampler
    from ingle.training.streams import Streams

    tokenizer, asked = Tokenizer.load(folder), questions(seed, steps)
    model = build_model(read_config(folder)).train()
    load_weights(folder, model)
    optimizers = Optimizers(model, OptimConfig(muon=False, adam_lr=RATE, betas=(0.9, 0.999)))
    objective = objective_preset("dapo")
    algorithm = Policy(objective, 1.0, model.config.vocab_size)
    made: list[dict[str, float]] = []
    began = time.perf_counter()
    with Streams(model, algorithm, 2, folder, True, os.cpu_count() or 1) as streams:
        sampler = Sampler(model, PROMPTS * GROUP, tokens, 128, (tokenizer.eos_id,))
        for step, problems in enumerate(asked):
            prompts = encoded(problems, folder)
            rng = random.Random(f"{seed}:{step}")
            seeds = [[rng.getrandbits(31) for _ in range(GROUP)] for _ in prompts]
            with streams.resting():
                found = sampler.sample(prompts, seeds, SamplingParams())
            marks = [
                [verdict(p, one.tokens, tokenizer) for one in group]
                for p, group in zip(problems, found, strict=True)
            ]
            rewards_PG = torch.tensor(marks, dtype=torch.float64)
            values_PG = advantages(rewards_PG, objective.scale)
            teaches_P = informative(rewards_PG)
            chosen = [
                (prompts[p], one, float(values_PG[p, g]))
                for p, group in enumerate(found) if teaches_P[p]
                for g, one in enumerate(group)
            ]  # fmt: skip
            if chosen:
                lengths = [len(one.tokens) for _, one, _ in chosen]
                weights = token_weights(lengths, objective.average, tokens)
                lessons = [
                    Lesson(prompt, one.tokens, one.logprobs, value, weight)
                    for (prompt, one, value), weight in zip(chosen, weights, strict=True)
                ]
                streams.gradient(pack_lessons(lessons, 4096, 2, tokenizer.special(PAD)))
                with streams.resting():
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizers.step(1.0)
            reward = float(rewards_PG.mean())
            made.append({"seconds": time.perf_counter() - began, "reward": reward})
    return made


def run_trl(
    folder: Path, seed: int, steps: int, tokens: int, experts: str
) -> list[dict[str, float]]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from ingle.prompt.tokenizer import Tokenizer

    torch.set_num_threads(os.cpu_count() or 1)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, experts_implementation=experts
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id = 0, 1, 2
    ours = Tokenizer.load(folder)
    problems = [problem for step in questions(seed, steps) for problem in step]
    texts = [tokenizer.decode(ids) for ids in encoded(problems, folder)]
    rewards: list[float] = []
    made: list[dict[str, float]] = []
    began = time.perf_counter()

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            made.append({"seconds": time.perf_counter() - began, "reward": rewards[-1]})

    def reward(completion_ids: list[list[int]], index: list[int], **_: Any) -> list[float]:
        marks = [
            verdict(problems[i], list(ids), ours)
            for ids, i in zip(completion_ids, index, strict=True)
        ]
        rewards.append(statistics.mean(marks))
        return marks

    config = GRPOConfig(
        output_dir=str(folder / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False,
        use_vllm=False, per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP,
        max_completion_length=tokens, temperature=1.0, top_k=0, beta=0.0, loss_type="dapo",
        epsilon_high=0.28, scale_rewards="group", learning_rate=RATE, max_steps=steps,
        lr_scheduler_type="constant", seed=seed, logging_steps=10**6, report_to="none",
        save_strategy="no", disable_tqdm=True, shuffle_dataset=False,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model, args=config, processing_class=tokenizer, callbacks=[Clock()],
        reward_funcs=reward,
        train_dataset=Dataset.from_dict({"prompt": texts, "index": list(range(len(texts)))}),
    )  # fmt: skip
    trainer.train()
    return made


def footprint(package: str) -> dict[str, float]:
    """Packages that installing one brings, itself included, and the size of their files."""
    seen: dict[str, metadata.Distribution] = {}
    waiting = [package]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        try:
            seen[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform
        for requirement in seen[name].requires or ():
            if "extra ==" not in requirement:
                waiting.append(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower())
    size = sum(
        path.stat().st_size
        for one in seen.values()
        for file in one.files or ()
        if (path := Path(str(one.locate_file(file)))).is_file()
    )
    return {"packages": len(seen), "megabytes": size / 2**20}


if __name__ == "__main__":
    main()
