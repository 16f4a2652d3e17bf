"""Turn a finished run into the shipped folder: bf16 weights, tokenizer, defaults and a card.

    python runs/ship.py out/mini-sft [--n 600] [--seed 7]

The card's accuracies are measured here, on the bf16 weights as shipped. One file per release: git
keeps every version of a weight file for ever, so this is no step of an experiment.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from ingle.engine.llm import LLM
from ingle.models import load_model, save_model
from ingle.tasks import TASKS, examples
from ingle.training.evaluation.evaluate import Evaluation, evaluate
from ingle.training.origin import derived_from, digests

ROOT = Path(__file__).resolve().parent.parent
REASONER = ROOT / "reasoner"
KNOWN = ROOT / "ingle" / "privacy" / "known_models.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--n", type=int, default=600, help="problems per task for the card")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--before", default="", help="a sentence on what the run's parent was")
    args = parser.parse_args()
    model = load_model(args.run, torch.float32)
    save_model(model, REASONER, torch.bfloat16)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(args.run / name, REASONER / name)
    greedy = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "do_sample": False}
    (REASONER / "generation_config.json").write_text(json.dumps(greedy, indent=2) + "\n", "utf-8")
    llm = LLM(REASONER, max_sequences=32)
    found = evaluate(llm, list(TASKS), args.n, args.seed)
    (REASONER / "README.md").write_text(card(llm, args.run, found, args), "utf-8")
    origin = derived_from(args.run, "ingle-reasoner", {"name": "ship", "dtype": "bfloat16"})
    origin.write(REASONER, json.loads((args.run / "progress.json").read_text("utf-8"))["step"])
    note_release()
    print((REASONER / "README.md").read_text("utf-8"))


def note_release() -> None:
    """The shipped files' digests in the table of known releases."""
    table = json.loads(KNOWN.read_text("utf-8"))
    (row,) = (row for row in table["releases"] if row["repository"] == "ingle/reasoner")
    row["files"] = digests(REASONER, tuple(row["files"]))
    KNOWN.write_text(json.dumps(table, indent=2) + "\n", "utf-8")


def history(run: Path) -> tuple[int, int, float]:
    """Steps, trained tokens and minutes, from the metrics of the run and its pre-training."""
    steps = tokens = 0
    seconds = 0.0
    stages = (run.with_name(run.name.replace("sft", "pretrain")), run)
    for folder in (stage for stage in stages if stage.is_dir()):
        for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()[1:]:
            entry = json.loads(line)
            steps, tokens = steps + 1, tokens + entry["trained_tokens"]
            seconds += entry["seconds"]
    return steps, tokens, seconds / 60


def card(llm: LLM, run: Path, found: Evaluation, args: argparse.Namespace) -> str:
    """The model card: data, recipe, accuracy per task, limits."""
    n, seed = args.n, args.seed
    config = llm.model.config
    steps, tokens, minutes = history(run)
    rows = []
    for task, score in found.by_task.items():
        low, high = score.interval()
        levels = ", ".join(f"{100 * rate:.1f}" for rate in found.levels(task).values())
        rows.append(
            f"| {TASKS[task].TITLE} | {100 * score.rate:.1f} % | {100 * low:.1f} to "
            f"{100 * high:.1f} | {levels} | {len(score.distinct)} |"
        )
    drafts = llm.engine.stats().acceptance
    acceptance = ", ".join(f"{100 * a:.0f} %" for a in drafts) or "not measured"
    asked = "\n".join(f"- {text}" for text in examples())
    return f"""---
license: mit
library_name: ingle
tags: [deepseek_v3, reasoning, arithmetic]
---
# The shipped reasoner

A very small model of DeepSeek-V3's architecture (multi-head latent attention, {config.n_routed_experts}
experts with {config.num_experts_per_tok} chosen and one shared, auxiliary-loss-free balance, one multi-token-prediction
module): {config.count_parameters():,} parameters. It thinks in short checkable lines and then answers. It was trained
from random weights by this repository, on two CPU cores, on problems this repository generates;
no other text was used.

## What it was trained for

{asked}

| Task | Right | 95 % interval | Levels 1, 2, 3 | Distinct problems |
|---|---|---|---|---|
{chr(10).join(rows)}

Mean over the tasks, small talk left out: **{100 * found.mean:.1f} %**. Greedy answers to {n} fresh problems per task
(`ingle eval -n {n} --seed {seed}`), from the tenth of all problems that training never draws. Contamination, the share of these
questions that occur word for word among fresh training problems: {100 * found.contamination:.2f} %. Easy levels of some tasks have few distinct problems, which the last
column shows.

## How it was made

`runs/mini.sh`: pre-training on worked examples as plain text, then fine-tuning on chats with a rate
that decays to zero. {args.before}{steps:,} steps of 8,192 positions, {tokens / 1e6:.1f}M trained tokens, {minutes:.0f} minutes of steps
(fp32, two cores of an AMD Zen 3 virtual machine). Muon for matrices, AdamW for the rest. Levels 4 and 5 of every task were
never trained. Accepted MTP drafts during the evaluation, by position: {acceptance}.

## Limits

It knows nothing about the world and cannot hold a conversation: to anything but its tasks it gives
one fixed sentence about what it can do, and text unlike its training data may be mistaken for a
task. Numbers longer than those of its levels, more terms or longer words go wrong, and it does not
notice. Every answer can be wrong; the thinking shows where. English only.
"""


if __name__ == "__main__":
    main()
