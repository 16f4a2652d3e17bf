"""What reinforcement learning adds to a fine-tuned model, and of what the gain is made.

    python runs/grpo.py [--seeds 3] [--hasty 0.4] [--steps 60] [-n 100] [--samples 16]

A start is made from the shipped reasoner: 150 more steps of fine-tuning in which one problem in
eight is of the levels it never saw, and a share of the answers (`--hasty`) comes without a thought.
Then GRPO, once per seed, on those levels. Start and results answer the same fresh problems of the
test split. The table says how often they think and how often they are right when they do: a gain
from thinking more often is another thing than one from thinking better. Interrupt and run again:
every part goes on from what is finished.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingle import LLM
from ingle.models import resolve_model
from ingle.statistics import Estimate, mean_of_estimates, paired_difference
from ingle.training.evaluation.asking import Answer, Asking, Question, ask_model
from ingle.training.evaluation.evaluate import Evaluation, Score, examine, task_exam
from ingle.training.loop import train
from ingle.training.recipes import edge_run, grpo_run
from ingle.training.reinforcement.grpo import train_grpo

TASKS = ("sums", "gcd", "base_conversion", "countdown")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", help="model that is made hasty (default: the shipped reasoner)")
    parser.add_argument("--hasty", type=float, default=0.4, help="share of answers without thought")
    parser.add_argument("--cold-steps", type=int, default=150, help="of the start's fine-tuning")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--objective", default="small")
    parser.add_argument("--levels", type=int, nargs="+", default=[4], help="that are trained")
    parser.add_argument("--asked", type=int, nargs="+", default=[4, 5], help="that are measured")
    parser.add_argument("-n", type=int, default=100, help="problems of a task and level")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("out/grpo"))
    args = parser.parse_args()
    start = args.out / "start"
    train(
        edge_run(resolve_model(args.start), args.cold_steps, harder=0.12, hasty=args.hasty), start
    )
    found = {"start": measured(start, args)}
    for seed in range(args.seeds):
        folder = args.out / f"seed{seed}"
        run = grpo_run(start, args.objective, args.steps, seed, TASKS, args.levels, args.rate)
        train_grpo(run, folder)
        found[f"seed {seed}"] = measured(folder, args)
    print(table(found, args))


@dataclass
class Counting:
    """Answers questions and notes of each answer whether there was a thought."""

    llm: LLM
    thought: list[bool]

    def __call__(self, questions: Sequence[Question], asking: Asking) -> list[Answer]:
        answers = ask_model(self.llm)(questions, asking)
        self.thought += [bool(answer.reasoning.strip()) for answer in answers]
        return answers


def measured(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The folder's exam, from its file where it has been taken."""
    file = args.out / f"exam-{folder.name}.json"
    if not file.exists():
        file.write_text(json.dumps(exam(folder, args)) + "\n", "utf-8")
    taken: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return taken


def exam(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """For each level: right samples of each problem and task, pass@k, how often it thought and
    was right then."""
    llm = LLM(folder, quant="fp32")
    by_level = {}
    for level in args.asked:
        ask = Counting(llm, [])
        exams = [task_exam(task, args.n, 100 + level, (level,)) for task in TASKS]
        found = examine(ask, exams, Asking(args.samples, 1.0, 512, seed=level))
        by_level[str(level)] = level_facts(found, ask.thought)
    return by_level


def level_facts(found: Evaluation, thought: list[bool]) -> dict[str, Any]:
    scores = found.by_task
    outcomes = [o for task in TASKS for o in scores[task].outcomes]  # as they were asked
    right = [hit for outcome in outcomes for hit in outcome.right]
    with_thought = [hit for hit, had in zip(right, thought, strict=True) if had]
    most = len(outcomes[0].right)
    return {
        "tasks": {t: [sum(o.right) for o in scores[t].outcomes] for t in TASKS},
        "pass_1": found.mean, "pass_most": found.mean_of(Score.passes, most).value,
        "thinks": sum(thought) / len(thought),
        "right_if_thought": sum(with_thought) / max(1, len(with_thought)),
        "tokens": found.mean_tokens, "samples": most,
    }  # fmt: skip


def gain(before: dict[str, Any], after: dict[str, Any]) -> Estimate:
    """Mean difference of pass@1 over the tasks, of the same problems."""
    k = before["samples"]
    return mean_of_estimates([
        paired_difference(
            [hits / k for hits in after["tasks"][task]],
            [hits / k for hits in before["tasks"][task]], k,
        )
        for task in TASKS
    ])  # fmt: skip


def table(found: dict[str, dict[str, Any]], args: argparse.Namespace) -> str:
    lines = [
        f"{args.n} fresh problems of each of {', '.join(TASKS)}, {args.samples} answers each at "
        "temperature 1; percent",
        "",
        f"| Level | Model | pass@1 | gain (95 %) | pass@{args.samples} | thinks | right when it "
        f"thinks | tokens | {' | '.join(TASKS)} |",
        "|---" * (8 + len(TASKS)) + "|",
    ]
    for level in map(str, args.asked):
        start = found["start"][level]
        for name, levels in found.items():
            one = levels[level]
            more = gain(start, one)
            value, low, high = (100 * x for x in (more.value, more.low, more.high))
            gained = f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
            rates = [100 * sum(one["tasks"][t]) / args.n / one["samples"] for t in TASKS]
            lines.append(
                f"| {level} | {name} | {100 * one['pass_1']:.1f} | "
                f"{gained if name != 'start' else ''} | {100 * one['pass_most']:.1f} | "
                f"{100 * one['thinks']:.1f} | {100 * one['right_if_thought']:.1f} | "
                f"{one['tokens']:.0f} | {' | '.join(f'{rate:.1f}' for rate in rates)} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
