"""`ingle eval [MODEL]`: how often a model is right about problems it has never seen."""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.cli import eval_against
from ingle.cli.options import add_json, add_model
from ingle.cli.sealing import enter
from ingle.cli.subject import add_endpoint
from ingle.cli.training import levels_of
from ingle.errors import InvalidRequestError

if TYPE_CHECKING:
    from ingle.training.evaluation.asking import Asking
    from ingle.training.evaluation.evaluate import Exam


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("-n", type=int, default=500, help="problems per task (default 500)")
    parser.add_argument("--seed", type=int, default=0, help="which fresh problems, which samples")
    parser.add_argument(
        "--task", action="append",
        help="only this task; may be repeated. Groups: trained (default), first (of those from "
        "nothing), transfer (never trained)",
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
        "--max-tokens", type=int, default=640, metavar="N", help="of one answer (default 640)"
    )
    parser.add_argument("--system", metavar="TEXT", help="an instruction ahead of each question")
    parser.add_argument("--no-think", action="store_true", help="ask for answers without a thought")
    parser.add_argument("--mistakes", type=int, default=0, metavar="K", help="show K wrong answers")
    eval_against.add_arguments(parser)
    add_endpoint(parser, "another server instead of MODEL")
    add_json(parser)
    parser.epilog = (
        "Intervals are 95 %: Wilson's, counted over problems, so that many answers to one problem "
        "are not taken for many problems; a difference is that of each problem. Ties of maj@k go "
        "to the answer that came first."
    )


def run(args: argparse.Namespace) -> int:
    """Everything that can be refused is checked before a model is loaded or a question sent."""
    folder = eval_against.record_folder(args)
    enter(args, *([] if folder is None else [folder]))
    asking, exams = _asking(args), _exams(args)
    parent = eval_against.parent_folder(args)
    from ingle.training.evaluation.comparison import changes, compare
    from ingle.training.report.record import folded, record

    found, after = eval_against.measure(args, exams, asking)
    evaluation: dict[str, Any] = {"before": None, "after": after}
    if parent is not None:
        _, evaluation["before"] = eval_against.measure(args, exams, asking, parent)
        evaluation["change"] = changes(compare(evaluation))
    written = [] if folder is None else record(folder, evaluation)
    if args.json:
        print(folded(after if parent is None else evaluation))
        return 0
    from ingle.cli.evaluation import render, render_change, render_mistakes

    if parent is None:
        print(render(found, asking.samples, after["seconds"]))
    else:
        print(render_change(evaluation))
    print(render_mistakes(found.mistakes[: args.mistakes]), end="")
    if folder is not None:
        print(f"Written to {folder}: {', '.join(file.name for file in written)}")
    return 0


def _asking(args: argparse.Namespace) -> Asking:
    from ingle.training.evaluation.asking import Asking

    temperature = args.temperature
    if temperature is None:
        temperature = 1.0 if args.samples > 1 else 0.0
    return Asking(
        args.samples, temperature, args.max_tokens, args.seed, args.system, not args.no_think
    )


def _exams(args: argparse.Namespace) -> list[Exam]:
    from ingle.tasks import ALL_TASKS
    from ingle.training.evaluation.evaluate import Exam, task_exam
    from ingle.training.evaluation.open_sets import judge, read_open_set

    tasks = _tasks(args.task or ([] if args.set else ["trained"]))
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
    read = [read_open_set(name, file, args.n, args.seed) for name, file in sets.items()]
    return [task_exam(task, args.n, args.seed, levels) for task in tasks] + [
        Exam(partial(list, problems), judge) for problems in read
    ]


def _tasks(chosen: list[str]) -> list[str]:
    """Names of tasks, of groups or both, as tasks; each once."""
    from ingle.tasks import ALL_TASKS, FIRST, TRAINED, TRANSFER

    groups = {"trained": TRAINED, "first": FIRST, "transfer": TRANSFER}
    for name in chosen:
        if name not in groups and name not in ALL_TASKS:
            names = ", ".join([*groups, *ALL_TASKS])
            raise InvalidRequestError(f"No task {name!r}; choose from {names}.", "task")
    return list(dict.fromkeys(task for name in chosen for task in groups.get(name, (name,))))
