"""`ingle distill WAY`: a student learns from a teacher; the same command resumes it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ingle.cli.admitting import add_policy, admission, ask_audit
from ingle.cli.options import add_json, add_quant
from ingle.cli.sealing import enter
from ingle.cli.subject import add_endpoint, subject
from ingle.cli.training import add_several, divided, levels_of
from ingle.errors import InvalidRequestError
from ingle.parallel.environment import leads, refuse_several

WAYS = ("traces", "forward", "on-policy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "way", choices=WAYS,
        help="traces: write what the teacher answers rightly as a file for `ingle sft --data`; "
        "forward: KL(teacher, student) on given text; on-policy: KL(student, teacher) on text the "
        "student writes",
    )  # fmt: skip
    parser.add_argument("--teacher", type=Path, help="a model folder (default: the shipped one)")
    parser.add_argument("--student", type=Path, help="the folder it starts from; its tokenizer is "
                        "the teacher's")  # fmt: skip
    parser.add_argument("--out", type=Path, help="folder of the run, or the file of traces")
    parser.add_argument("--task", action="append", help="only this task; may be repeated")
    parser.add_argument("--levels", help="for example 1,2,3 (default: the trained levels)")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--top-k", type=int, default=0, metavar="K",
                        help="forward: only the teacher's K likeliest tokens")  # fmt: skip
    parser.add_argument("-n", type=int, default=2000, help="traces: problems to ask")
    parser.add_argument("--samples", type=int, default=4, metavar="K", help="traces: of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop-after", type=int, metavar="STEP", help="pause there")
    parser.add_argument("--no-compile", action="store_true", help="plain eager PyTorch")
    add_several(parser)
    add_quant(parser)
    add_endpoint(parser, "traces: another server as teacher")
    add_policy(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    if args.way == "traces":
        refuse_several("distill traces")
        return _traces(args)
    if args.student is None:
        raise InvalidRequestError("--student names the folder that the student starts from.")
    folder = args.out or Path("out") / f"distill-{args.way}"
    ask_audit(args, args.student)
    enter(args, folder, starts="programs", several=True)  # streams, a compiler
    from ingle.models import resolve_model
    from ingle.privacy.admission import admit
    from ingle.privacy.policy import load_policy
    from ingle.training.distill import train_distill
    from ingle.training.recipes import distill_run

    student, teacher = resolve_model(args.student), resolve_model(args.teacher)
    for model in (student, teacher):
        admit(model, load_policy(args.policy), admission(args)["sealed"])
    chosen = distill_run(
        args.way, student, teacher, args.steps, args.seed, tuple(args.task or ()),
        levels_of(args.levels), args.top_k,
    )  # fmt: skip
    train_distill(
        divided(args, chosen), folder, compiled=not args.no_compile, stop_after=args.stop_after,
        expert_parallel=args.expert_parallel,
    )  # fmt: skip
    if not leads():
        return 0
    if args.json:
        print(json.dumps({"run": chosen.name, "folder": str(folder), "steps": chosen.steps}))
    else:
        print(f"{folder} holds the student; open {folder / 'report.html'} for the curves.")
    return 0


def _traces(args: argparse.Namespace) -> int:
    out = args.out or Path("out") / "traces.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    if args.endpoint is None:
        ask_audit(args, args.teacher)
    enter(args, out.parent)
    from ingle.training.evaluation.asking import Asking
    from ingle.training.recipes import mixture_of
    from ingle.training.traces import Tally, write_traces

    asking = Asking(args.samples, 1.0 if args.samples > 1 else 0.0, seed=args.seed)
    mixture = mixture_of(tuple(args.task or ()), levels_of(args.levels))
    args.model = args.teacher

    def show(tally: Tally) -> None:
        print(f"{tally.asked}/{args.n} asked, {tally.solved} solved", file=sys.stderr)

    tally = write_traces(subject(args), asking, mixture, args.n, out, show=show)
    if args.json:
        print(json.dumps(vars(tally) | {"file": str(out)}))
    else:
        print(f"{out}: {tally.rows} conversations from {tally.solved} of {tally.asked} problems.")
    return 0
