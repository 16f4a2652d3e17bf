"""Turn a finished run into the shipped folder: bf16 weights, tokenizer, defaults and a card.

    python runs/ship.py out/grow/reinforce [--n 600] [--seed 7] [--set gsm8k=test.jsonl]

--reinforced is what `ingle eval RUN --against parent --samples 16 --json` printed of the run.

The card's accuracies are measured here, on the bf16 weights as shipped. One file per release: git
keeps every version of a weight file for ever, so this is no step of an experiment.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ingle.engine.llm import LLM
from ingle.models import load_model, save_model
from ingle.tasks import TASKS, TRANSFER
from ingle.training.evaluation.asking import Asking, ask_model
from ingle.training.evaluation.evaluate import Exam, examine, task_exam
from ingle.training.evaluation.open_sets import judge, read_open_set
from ingle.training.origin import derived_from, digests
from ingle.training.report.card import CARD, Words, card, results
from ingle.training.report.history import Stage, lineage

ROOT = Path(__file__).resolve().parent.parent
REASONER = ROOT / "reasoner"
KNOWN = ROOT / "ingle" / "privacy" / "known_models.json"
FRONT = """
license: mit
library_name: ingle
tags: [deepseek_v3, reasoning, arithmetic]
"""
LIMITS = """
It knows nothing about the world and cannot hold a conversation: to anything but its tasks it gives
one fixed sentence about what it can do, and text unlike its training data may be mistaken for a
task. Numbers longer than those of its levels, more terms or longer words go wrong, and it does not
notice. Every answer can be wrong; the thinking shows where. English only.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--n", type=int, default=600, help="problems per task for the card")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--before", default="", help="a sentence on what the run's parent was")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=FILE",
                        help="an open set to report, as of `ingle eval`")  # fmt: skip
    parser.add_argument("--reinforced", type=Path, metavar="JSON",
                        help="what reinforcement learning did, for the card")  # fmt: skip
    args = parser.parse_args()
    model = load_model(args.run, torch.float32)
    save_model(model, REASONER, torch.bfloat16)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(args.run / name, REASONER / name)
    greedy = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "do_sample": False}
    (REASONER / "generation_config.json").write_text(json.dumps(greedy, indent=2) + "\n", "utf-8")
    llm = LLM(REASONER, max_sequences=32)
    stages = lineage(args.run)
    origin = derived_from(args.run, "ingle-reasoner", {"name": "ship", "dtype": "bfloat16"})
    origin.write(REASONER, json.loads((args.run / "progress.json").read_text("utf-8"))["step"])
    evaluation = {"before": None, "after": measured(llm, args)}
    said = words(args.before, stages)
    if args.reinforced:
        both = json.loads(args.reinforced.read_text("utf-8"))
        parts = ["## Before and after reinforcement learning", *results(args.run, both)]
        said = replace(said, more="\n\n".join(parts))
    text = card(REASONER, evaluation, said, stages)
    (REASONER / CARD).write_text(text, "utf-8")
    note_release()
    print(text)


def measured(llm: LLM, args: argparse.Namespace) -> dict[str, Any]:
    """One greedy answer to n fresh problems of each task, those for transfer among them, and to
    open sets, as `ingle eval --json` tells it."""
    asking = Asking(seed=args.seed)
    exams = [task_exam(task, args.n, args.seed) for task in (*TASKS, *TRANSFER)]
    for name, _, file in (text.partition("=") for text in args.set):
        exams.append(Exam(partial(read_open_set, name, Path(file), args.n, args.seed), judge))
    found = examine(ask_model(llm), exams, asking)
    return {
        "model": "reasoner", "seed": args.seed, "asked": asdict(asking),
        "acceptance": list(llm.engine.stats().acceptance), **found.as_json(),
    }  # fmt: skip


def note_release() -> None:
    """The shipped files' digests in the table of known releases."""
    table = json.loads(KNOWN.read_text("utf-8"))
    (row,) = (row for row in table["releases"] if row["repository"] == "ingle/reasoner")
    row["files"] = digests(REASONER, tuple(row["files"]))
    KNOWN.write_text(json.dumps(table, indent=2) + "\n", "utf-8")


def words(before: str, stages: Sequence[Stage]) -> Words:
    """What the card says beyond what files know."""
    harder = any(stage.config.get("mixture", {}).get("harder") for stage in stages)
    untrained = "" if harder else "Levels 4 and 5 of every task were never trained. "
    return Words(
        title="The shipped reasoner", front=FRONT, limits=LIMITS,
        asked=[task.EXAMPLES[0] for task in TASKS.values()],
        lead="It thinks in short checkable lines and then answers. It was trained from random "
        "weights by this repository, on two CPU cores, on problems this repository generates; no "
        "other text was used.",
        made="`runs/mini.sh`: pre-training on worked examples as plain text, then fine-tuning on "
        "chats, of eight tasks; then `runs/grow.py`: the other tasks at a constant rate, then all "
        "with a rate that decays to zero, three times, and reinforcement learning (GRPO) on eight "
        f"of them. {before} Muon for matrices, AdamW for the rest. "
        f"{untrained}The figures above are those of `ingle eval` on the weights as shipped, in "
        "bf16.".replace("  ", " "),
    )  # fmt: skip


if __name__ == "__main__":
    main()
