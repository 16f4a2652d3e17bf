"""`ingle eval [MODEL]`: accuracy per task on problems it has never seen."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

from ingle.cli.options import add_json, add_model, weights_options
from ingle.errors import InvalidRequestError

if TYPE_CHECKING:
    from ingle.training.evaluate import Evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("-n", type=int, default=500, help="problems per task (default 500)")
    parser.add_argument("--seed", type=int, default=0, help="which fresh problems")
    parser.add_argument("--task", action="append", help="only this task; may be repeated")
    parser.add_argument("--levels", help="for example 1,2,3 or 4 (default: the trained levels)")
    parser.add_argument("--mistakes", type=int, default=0, metavar="K", help="show K wrong answers")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from ingle.engine.llm import LLM
    from ingle.tasks import TASKS
    from ingle.training.evaluate import evaluate

    tasks = args.task or list(TASKS)
    for task in tasks:
        if task not in TASKS:
            raise InvalidRequestError(f"No task {task!r}; choose from {', '.join(TASKS)}.", "task")
    if args.n < 1:
        raise InvalidRequestError("-n must be at least 1.", "n")
    levels = _levels(args.levels)
    llm = LLM(args.model, **weights_options(args), max_sequences=32)
    started = time.perf_counter()
    found = evaluate(llm, tasks, args.n, args.seed, levels)
    seconds = time.perf_counter() - started
    if args.json:
        print(json.dumps(_as_json(found, args, seconds), indent=2))
        return 0
    print(f"{'task':<18}{'right':>8}{'n':>7}   95 % interval     by level")
    for task, score in found.by_task.items():
        low, high = score.interval()
        levels_of = found.levels(task).items()
        per_level = "  ".join(f"L{level} {100 * rate:.1f}" for level, rate in levels_of)
        print(
            f"{task:<18}{100 * score.rate:7.1f}%{score.n:7}   "
            f"{100 * low:5.1f} to {100 * high:5.1f}    {per_level}"
        )
    if len(found.by_task) > 1:
        print(f"{'mean of tasks':<18}{100 * found.mean:7.1f}%   (chat left out)")
    print(
        f"contamination {100 * found.contamination:.2f} %: questions also found among "
        f"fresh training problems; {found.mean_tokens:.0f} tokens an answer; {seconds:.0f} s"
    )
    for problem, text, reason in found.mistakes[: args.mistakes]:
        print(f"\n{problem.question}\n{text}\n   {reason} Gold trace:\n{problem.trace}")
    return 0


def _levels(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        levels = tuple(int(part) for part in text.split(","))
    except ValueError:
        levels = ()
    if not levels or not all(1 <= level <= 5 for level in levels):
        raise InvalidRequestError("--levels takes numbers from 1 to 5, such as 1,2,3.", "levels")
    return levels


def _as_json(found: Evaluation, args: argparse.Namespace, seconds: float) -> dict[str, object]:
    return {
        "seed": args.seed,
        "seconds": round(seconds, 1),
        "mean": found.mean if len(found.by_task) > 1 else None,
        "contamination": found.contamination,
        "mean_tokens": found.mean_tokens,
        "tasks": {
            task: {
                "right": score.right,
                "n": score.n,
                "distinct": len(score.distinct),
                "rate": score.rate,
                "interval": score.interval(),
                "levels": found.levels(task),
            }
            for task, score in found.by_task.items()
        },
    }
