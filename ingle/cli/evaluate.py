"""`ingle eval [MODEL]`: how often a model is right about problems it has never seen."""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.cli.options import add_json, add_model
from ingle.cli.subject import add_endpoint, subject
from ingle.cli.training import levels_of
from ingle.errors import InvalidRequestError

if TYPE_CHECKING:
    from ingle.training.evaluation.asking import Asking
    from ingle.training.evaluation.evaluate import Evaluation, Exam


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("-n", type=int, default=500, help="problems per task (default 500)")
    parser.add_argument("--seed", type=int, default=0, help="which fresh problems, which samples")
    parser.add_argument(
        "--task", action="append",
        help="only this task; may be repeated. Groups: shipped (default), trained (of a new run), "
        "transfer (never trained)",
    )  # fmt: skip
    parser.add_argument("--levels", help="for example 1,2,3 or 4 (default: the trained levels)")
    parser.add_argument(
        "--set", action="append", metavar="NAME=FILE", default=[],
        help="problems from a file in the format of GSM8K or SVAMP, judged by the final number; "
        "may be repeated; tasks of ours are then asked only where --task names them",
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=int, default=1, metavar="K",
        help="answers to each problem (default 1, greedy), for pass@k and maj@k",
    )  # fmt: skip
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="default: 1 for several samples, else 0"
    )
    parser.add_argument(
        "--max-tokens", type=int, default=400, metavar="N", help="of one answer (default 400)"
    )
    parser.add_argument("--system", metavar="TEXT", help="an instruction ahead of each question")
    parser.add_argument("--mistakes", type=int, default=0, metavar="K", help="show K wrong answers")
    add_endpoint(parser, "another server instead of MODEL")
    add_json(parser)
    parser.epilog = (
        "Intervals are 95 %: Wilson's, counted over problems, so that many answers to one problem "
        "are not taken for many problems. Ties of maj@k go to the answer that came first."
    )


def run(args: argparse.Namespace) -> int:
    """Everything that can be refused is checked before a model is loaded or a question sent."""
    from ingle.training.evaluation.evaluate import examine

    asking, exams = _asking(args), _exams(args)
    ask = subject(args)
    started = time.perf_counter()
    found = examine(ask, exams, asking)
    seconds = time.perf_counter() - started
    if args.json:
        print(_folded(json.dumps(_as_json(found, args, asking, seconds), indent=2)))
        return 0
    from ingle.cli.evaluation import render

    print(render(found, asking.samples, seconds))
    for problem, text, reason in found.mistakes[: args.mistakes]:
        gold = f"Gold trace:\n{problem.trace}" if problem.trace else f"Gold: {problem.answer}"
        print(f"\n{problem.question}\n{text}\n   {reason} {gold}")
    return 0


def _asking(args: argparse.Namespace) -> Asking:
    from ingle.training.evaluation.asking import Asking

    temperature = args.temperature
    if temperature is None:
        temperature = 1.0 if args.samples > 1 else 0.0
    return Asking(args.samples, temperature, args.max_tokens, args.seed, args.system)


def _exams(args: argparse.Namespace) -> list[Exam]:
    from ingle.tasks import ALL_TASKS
    from ingle.training.evaluation.evaluate import Exam, task_exam
    from ingle.training.evaluation.open_sets import judge, read_open_set

    tasks = _tasks(args.task or ([] if args.set else ["shipped"]))
    for name in ("n", "at_a_time"):
        if getattr(args, name) < 1:
            raise InvalidRequestError(f"{name} must be at least 1.", name)
    levels = levels_of(args.levels)
    sets: dict[str, Path] = {}
    for text in args.set:
        name, equals, file = text.partition("=")
        if not (re.fullmatch(r"[\w.-]+", name) and equals and file) or name in [*ALL_TASKS, *sets]:
            raise InvalidRequestError(
                f"--set {text} is not NAME=FILE with a name of its own, such as gsm8k=test.jsonl.",
                "set",
            )
        sets[name] = Path(file)
    return [task_exam(task, args.n, args.seed, levels) for task in tasks] + [
        Exam(read_open_set(name, file, args.n, args.seed), judge) for name, file in sets.items()
    ]


def _tasks(chosen: list[str]) -> list[str]:
    """Names of tasks, of groups or both, as tasks; each once."""
    from ingle.tasks import ALL_TASKS, SHIPPED, TRAINED, TRANSFER

    groups = {"shipped": SHIPPED, "trained": TRAINED, "transfer": TRANSFER}
    for name in chosen:
        if name not in groups and name not in ALL_TASKS:
            names = ", ".join([*groups, *ALL_TASKS])
            raise InvalidRequestError(f"No task {name!r}; choose from {names}.", "task")
    return list(dict.fromkeys(task for name in chosen for task in groups.get(name, (name,))))


def _as_json(
    found: Evaluation, args: argparse.Namespace, asking: Asking, seconds: float
) -> dict[str, Any]:
    return {
        "model": args.endpoint_model or args.model or "reasoner",
        "endpoint": args.endpoint,
        "seed": asking.seed,
        "asked": {
            "samples": asking.samples,
            "temperature": asking.temperature,
            "max_tokens": asking.max_tokens,
            "system": asking.system,
        },
        "seconds": round(seconds, 1),
        **found.as_json(),
        "mistakes": [
            {"task": p.task, "level": p.level, "question": p.question, "answer": text, "why": why}
            for p, text, why in found.mistakes[: args.mistakes]
        ],
    }


def _folded(text: str) -> str:
    """Indented JSON with each list of numbers on one line; no string holds a bare line break."""
    return re.sub(r"\[\n[-+.\deE,\s]+\]", lambda found: " ".join(found[0].split()), text)
