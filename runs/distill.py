"""Does a teacher help? One small student, taught in three ways and alone, on equally many tokens.

    python runs/distill.py [--steps 150] [-n 200]

The student is `nano`, pre-trained on worked examples; the teacher is the shipped reasoner. Alone,
the student is fine-tuned on the generators' own worked answers. By traces it reads what the teacher
wrote and the verifier accepted; forward it reads the generators' text and matches the teacher's
probabilities; on-policy it reads its own text and is told what the teacher would have written. All
four then answer the same fresh problems. Interrupt and run again: what is finished stays.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ingle import LLM
from ingle.models import resolve_model
from ingle.prompt.tokenizer import Tokenizer
from ingle.statistics import Estimate, mean_of_estimates, paired_difference
from ingle.tasks import TRAINED, Problem
from ingle.training.data import Document, Mixture, chat_document
from ingle.training.distill import train_distill
from ingle.training.evaluation.asking import Asking, ask_model
from ingle.training.evaluation.evaluate import Evaluation, evaluate
from ingle.training.loop import Run, train
from ingle.training.optim import OptimConfig
from ingle.training.presets import model_preset
from ingle.training.recipes import distill_run, pretrain_run
from ingle.training.traces import write_traces
from ingle.training.vocabulary import exchange_words

TASKS = (
    "sums", "products", "gcd", "base_conversion", "sorting", "spell_backward", "letter_counting",
    "countdown",
)  # fmt: skip
WAYS = ("alone", "traces", "forward", "on-policy")
OPTIM = OptimConfig(muon_lr=0.01, adam_lr=2e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", help="model folder (default: the shipped reasoner)")
    parser.add_argument("--steps", type=int, default=150, help="of 8,192 positions")
    parser.add_argument("--problems", type=int, default=8192, help="that the teacher is asked")
    parser.add_argument("-n", type=int, default=200, help="fresh problems of a task")
    parser.add_argument("--out", type=Path, default=Path("out/distillation"))
    args = parser.parse_args()
    teacher = resolve_model(args.teacher)
    student = args.out / "student"
    train(pretrain_run("nano"), args.out / "base")
    exchange_words(args.out / "base", student, TRAINED)  # those of the teacher
    found = {"start": measured(student, args), "teacher": measured(teacher, args)}
    for way in WAYS:
        folder = args.out / way
        teach(way, student, teacher, folder, args)
        found[way] = measured(folder, args)
    print(table(found, args.out))


def teach(way: str, student: Path, teacher: Path, folder: Path, args: argparse.Namespace) -> None:
    given = Mixture(dict.fromkeys(TASKS, 1.0), chat=True)
    alone = Run(
        name="alone", model=model_preset("nano"), mixture=given, steps=args.steps, optim=OPTIM,
        seed=1, parent=student, warmup=10, decay=0.9, mtp_weight=0.0, bias_speed=0.0,
    )  # fmt: skip
    if way == "alone":
        train(alone, folder)
    elif way == "traces":
        file = args.out / "traces.jsonl"
        llm = LLM(teacher, quant="fp32")
        asking = Asking(samples=1, temperature=0.6, max_tokens=640, seed=1)
        write_traces(ask_model(llm), asking, given, args.problems, file)
        train(replace(alone, name="traces", mixture=Written(file)), folder)
    elif way == "forward":
        run = distill_run("forward", student, teacher, args.steps, 1, TASKS)
        train_distill(replace(run, optim=OPTIM), folder)
    else:
        run = distill_run("on-policy", student, teacher, args.steps, 1, TASKS)
        train_distill(replace(run, prompts=24), folder)


@dataclass(frozen=True)
class Written:
    """`Documents` of a file of accepted answers, drawn with replacement."""

    file: Path

    @cached_property
    def problems(self) -> list[Problem]:
        rows = [json.loads(line) for line in self.file.read_text("utf-8").splitlines()]
        return [
            Problem(
                row["task"], row["level"], row["messages"][0]["content"],
                row["messages"][1]["reasoning_content"], row["messages"][1]["content"], "", {},
            )
            for row in rows
        ]  # fmt: skip

    def documents(self, rng: random.Random, tokenizer: Tokenizer) -> Iterator[Document]:
        while True:
            yield chat_document([], rng.choice(self.problems), tokenizer)

    def describes(self) -> str:
        return f"{len(self.problems)} answers of a teacher that the verifier accepted."


def measured(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Right or wrong of every problem, from the file where it was measured before."""
    file = args.out / f"exam-{folder.name}.json"
    if not file.exists():
        found: Evaluation = evaluate(LLM(folder, quant="fp32"), list(TASKS), args.n, seed=11)
        right = {t: [int(o.right[0]) for o in found.by_task[t].outcomes] for t in TASKS}
        file.write_text(json.dumps({"right": right, "tokens": found.mean_tokens}) + "\n", "utf-8")
    taken: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return taken


def gain(one: dict[str, Any], other: dict[str, Any]) -> Estimate:
    pairs = [(one["right"][task], other["right"][task]) for task in TASKS]
    return mean_of_estimates([paired_difference(mine, theirs) for mine, theirs in pairs])


def trained_tokens(folder: Path) -> int:
    rows = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return sum(row.get("trained_tokens", 0) for row in rows)


def table(found: dict[str, dict[str, Any]], out: Path) -> str:
    lines = [f"| Student | trained tokens | mean | against alone (95 %) | {' | '.join(TASKS)} |"]
    lines.append("|---" * (4 + len(TASKS)) + "|")
    for name, one in found.items():
        rates = [100 * sum(one["right"][task]) / len(one["right"][task]) for task in TASKS]
        trained = f"{trained_tokens(out / name):,}" if name in WAYS else ""
        more = ""
        if name in WAYS and name != "alone":
            e = gain(one, found["alone"])
            more = f"{100 * e.value:+.1f} ({100 * e.low:+.1f} to {100 * e.high:+.1f})"
        lines.append(
            f"| {name} | {trained} | {sum(rates) / len(rates):.1f} | {more} | "
            f"{' | '.join(f'{rate:.1f}' for rate in rates)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
