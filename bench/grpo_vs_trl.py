"""Reinforcement learning here against TRL's GRPOTrainer: rollouts and updates a second.

    pip install -e '.[peers]'
    python bench/grpo_vs_trl.py [MODEL] [--steps 4] [--rounds 3] [--tokens 128] [--json]

Both sides load the same fp32 weights and the same tokenizer file, ask the same 16 questions 8 times
a step, write exactly `--tokens` tokens (end-of-sequence forbidden, temperature 1), score them with
the same Python function and make one AdamW update of the "dapo" loss over all of them. Before
anything is timed their logits must agree within 1e-4.

TRL is set up as fast as it goes on a CPU: no gradient checkpointing, no mixed precision in fp32,
one micro-batch of all 128, no logging and no saving, the fastest of transformers' expert
implementations, chosen here. Sides run in turn, each in a process of its own with all cores; the
first step of each is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

PROMPTS, GROUP = 16, 8
IMPLEMENTATIONS = ("eager", "batched_mm", "grouped_mm")
RATE = 2e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--steps", type=int, default=4, help="timed steps of a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=("ingle", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--experts", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        side = {"ingle": run_ingle, "trl": run_trl}[args.side]
        print(json.dumps(side(Path(args.model), args.steps, args.tokens, args.experts)))
        return
    with tempfile.TemporaryDirectory() as folder:
        export(args.model, Path(folder))
        difference = logit_difference(Path(folder))
        assert difference < 1e-4, f"the logits of both sides differ by {difference}"
        compare(args, Path(folder), difference)


def compare(args: argparse.Namespace, folder: Path, difference: float) -> None:
    """Run the sides in turn and print their medians."""
    tries = {how: attempt(folder, args, how) for how in IMPLEMENTATIONS}
    fastest = min(tries, key=lambda how: tries[how])
    rounds: dict[str, list[dict[str, Any]]] = {"ingle": [], "trl": []}
    for _ in range(args.rounds):
        for side in rounds:
            rounds[side].append(measure(folder, args, side, fastest, args.steps))
    seconds = {side: statistics.median(map(total, found)) for side, found in rounds.items()}
    facts = {
        "rollouts_per_second": {s: PROMPTS * GROUP / seconds[s] for s in seconds},
        "ratio": seconds["trl"] / seconds["ingle"],
        "ratios": [
            total(t) / total(i) for i, t in zip(rounds["ingle"], rounds["trl"], strict=True)
        ],
        "logit_difference": difference,
        "trl_experts": fastest,
        "rounds": rounds,
    }
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    for side, found in rounds.items():
        parts = {k: statistics.median(f[k] for f in found) for k in ("rollout", "update", "memory")}
        print(f"{side:>6}: {PROMPTS * GROUP / seconds[side]:6.1f} rollouts/s, a step "
              f"{seconds[side]:.2f} s: {parts['rollout']:.2f} rollouts, {parts['update']:.2f} "
              f"update; {parts['memory'] / 2**20:,.0f} MB at most")  # fmt: skip
    print(f"ratio {facts['ratio']:.2f} (each round: "
          f"{', '.join(f'{r:.2f}' for r in facts['ratios'])}); TRL with {fastest} experts; "
          f"logits differ by {difference:.1e}")  # fmt: skip


def total(found: dict[str, Any]) -> float:
    return float(found["rollout"] + found["update"])


def attempt(folder: Path, args: argparse.Namespace, experts: str) -> float:
    """Seconds of one of TRL's steps with a short reply; endless where it fails, as "batched_mm"
    does on a machine whose memory its copies of the experts do not fit."""
    short = argparse.Namespace(**vars(args) | {"tokens": 32})
    try:
        return total(measure(folder, short, "trl", experts, steps=1))
    except SystemExit:
        print(f"TRL failed with {experts} experts", file=sys.stderr)
        return float("inf")


def measure(
    folder: Path, args: argparse.Namespace, side: str, experts: str, steps: int
) -> dict[str, Any]:
    command = [sys.executable, __file__, str(folder), "--side", side, "--experts", experts]
    command += ["--steps", str(steps), "--tokens", str(args.tokens)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        raise SystemExit(made.stderr[-2000:])
    found: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return found


def export(model: str | None, folder: Path) -> None:
    """The weights in fp32 without the MTP module, which transformers does not have."""
    import shutil

    import torch

    from ingle.models import load_model, resolve_model, save_model

    source = resolve_model(model)
    loaded = load_model(source, torch.float32, "reference")
    save_model(loaded, folder, torch.float32)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)


def logit_difference(folder: Path) -> float:
    """Largest difference of both sides' logits on the prompts."""
    import torch
    from transformers import AutoModelForCausalLM

    from ingle.models import load_model

    ours = load_model(folder, torch.float32, "reference")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    worst = 0.0
    with torch.no_grad():
        for ids in prompts(folder)[:4]:
            tokens = torch.tensor([ids])
            worst = max(worst, float((ours(tokens) - theirs(tokens).logits).abs().max()))
    return worst


def prompts(folder: Path) -> list[list[int]]:
    from ingle.prompt.deepseek_r1 import DeepSeekR1
    from ingle.prompt.tokenizer import Tokenizer
    from ingle.tasks import sample

    rng, tokenizer = random.Random(1), Tokenizer.load(folder)
    asked = [sample(rng, ("countdown", "sums")[i % 2], 2, "train").question for i in range(PROMPTS)]
    return [DeepSeekR1().encode([{"role": "user", "content": q}], tokenizer) for q in asked]


def score(ids: list[int]) -> float:
    """Any function of the tokens does for speed: the share of even ones."""
    return sum(i % 2 == 0 for i in ids) / len(ids)


def run_ingle(folder: Path, steps: int, tokens: int, _: str) -> dict[str, float]:
    """The pieces of training/reinforcement/grpo.py; what was cut off is trained on here."""
    import torch

    from ingle.engine.request import SamplingParams
    from ingle.models import build_model, read_config
    from ingle.prompt.tokenizer import Tokenizer
    from ingle.training.checkpoint import load_weights
    from ingle.training.data import PAD
    from ingle.training.optim import OptimConfig, Optimizers
    from ingle.training.reinforcement.objectives import advantages, objective_preset, token_weights
    from ingle.training.reinforcement.policy import Lesson, Policy, pack_lessons
    from ingle.training.reinforcement.rollout import Sampler
    from ingle.training.streams import Streams

    asked, tokenizer = prompts(folder), Tokenizer.load(folder)
    model = build_model(read_config(folder)).train()
    load_weights(folder, model)
    optimizers = Optimizers(model, OptimConfig(muon=False, adam_lr=RATE))
    objective = objective_preset("dapo")
    algorithm = Policy(objective, 1.0, model.config.vocab_size)
    params = SamplingParams(logit_bias={tokenizer.eos_id: -100.0})
    weights = token_weights([tokens] * PROMPTS * GROUP, objective.average, tokens)
    times: dict[str, list[float]] = {"rollout": [], "update": []}
    with Streams(model, algorithm, 2, folder, True, os.cpu_count() or 1) as streams:
        sampler = Sampler(model, PROMPTS * GROUP, tokens, 128, (tokenizer.eos_id,))
        for step in range(steps + 1):
            started = time.perf_counter()
            seeds = [[step * 10_000 + p * 100 + g for g in range(GROUP)] for p in range(PROMPTS)]
            with streams.resting():
                found_P_G = sampler.sample(asked, seeds, params)
            rewards_PG = torch.tensor([[score(one.tokens) for one in g] for g in found_P_G])
            values_PG = advantages(rewards_PG, objective.scale)
            middle = time.perf_counter()
            lessons = [
                Lesson(prompt, one.tokens, one.logprobs, float(values_PG[p, g]), weights[0])
                for p, (prompt, group) in enumerate(zip(asked, found_P_G, strict=True))
                for g, one in enumerate(group)
            ]
            streams.gradient(pack_lessons(lessons, 4096, 2, tokenizer.special(PAD)))
            with streams.resting():
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizers.step(1.0)
            if step:
                times["rollout"].append(middle - started)
                times["update"].append(time.perf_counter() - middle)
    return {k: statistics.median(v) for k, v in times.items()} | {"memory": peak_memory()}


def run_trl(folder: Path, steps: int, tokens: int, experts: str) -> dict[str, float]:
    """GRPOTrainer on the same questions, its phases timed from outside."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(os.cpu_count() or 1)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, experts_implementation=experts
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id = 0, 1, 2
    asked = prompts(folder)
    texts = [tokenizer.decode(ids) for ids in asked]
    assert [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts] == asked
    spent = {"rollout": 0.0}
    ends = [time.perf_counter()]

    class Timed(GRPOTrainer):
        def _generate_and_score_completions(self, *inputs: Any) -> Any:
            started = time.perf_counter()
            made = super()._generate_and_score_completions(*inputs)
            spent["rollout"] += time.perf_counter() - started
            return made

    rollouts: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())
            rollouts.append(spent["rollout"])

    config = GRPOConfig(
        output_dir=str(folder / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False,
        use_vllm=False, per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP,
        max_completion_length=tokens, temperature=1.0, top_k=0, beta=0.0, loss_type="dapo",
        epsilon_high=0.28, scale_rewards="group", learning_rate=RATE, max_steps=steps + 1,
        logging_steps=10**6, report_to="none", save_strategy="no", disable_tqdm=True,
        shuffle_dataset=False, generation_kwargs={"suppress_tokens": [1]},
    )  # fmt: skip
    trainer = Timed(
        model=model, args=config, processing_class=tokenizer, callbacks=[Clock()],
        reward_funcs=lambda completion_ids, **_: [score(ids) for ids in completion_ids],
        train_dataset=Dataset.from_dict({"prompt": texts * (steps + 1)}),
    )  # fmt: skip
    trainer.train()
    whole = [b - a for a, b in pairwise(ends[1:])]
    generated = [b - a for a, b in pairwise(rollouts)]
    rollout = statistics.median(generated)
    return {
        "rollout": rollout,
        "update": statistics.median(whole) - rollout,
        "memory": peak_memory(),
    }


def peak_memory() -> float:
    """Most resident bytes of this process and of a helper."""
    import resource

    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024.0 * (own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


if __name__ == "__main__":
    main()
