"""`ingle sft MODEL --data FILE.jsonl`: fine-tune a model folder on conversations, whole or LoRA.

The same command resumes a run. With `--lora` the folder of the run holds an adapter in PEFT's
format; `ingle merge` makes a model of it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.cli.admitting import admission, ask_audit
from ingle.cli.sealing import enter
from ingle.cli.training import divided
from ingle.parallel.environment import leads, refuse_several

if TYPE_CHECKING:
    from ingle.training.finetuning.conversations import Dataset
    from ingle.training.finetuning.finetune import FineTuning

_SHOWN = 10  # broken rows named on stderr; --json has them all
_TARGETS = ("attention", "mlp", "experts")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a model folder, on conversations of your own")
    group.add_argument(
        "--data", type=Path, metavar="FILE.jsonl", help="a JSON object with messages on each line"
    )
    group.add_argument(
        "--skip-broken", action="store_true", help="leave broken rows out, and list them"
    )
    group.add_argument("--epochs", type=int, default=2, help="times over the data (default 2)")
    group.add_argument(
        "--length", type=int, metavar="TOKENS",
        help="longest conversation (default 2048, or the model's context)",
    )  # fmt: skip
    group.add_argument(
        "--batch",
        type=int,
        default=8192,
        metavar="TOKENS",
        help="of a step, in streams of --length (default 8192)",
    )
    group.add_argument(
        "--lr", type=float, help="peak learning rate (default 2e-4 with --lora, else 2e-5)"
    )
    group.add_argument("--save-every", type=int, default=50, metavar="STEPS")
    group.add_argument("--lora", type=int, metavar="RANK", help="train an adapter only")
    group.add_argument("--alpha", type=float, help="of the adapter (default twice the rank)")
    group.add_argument(
        "--target", action="append", choices=_TARGETS,
        help="matrices that get an adapter; may be repeated (default: all)",
    )  # fmt: skip
    group.add_argument(
        "--dtype", choices=("fp32", "bf16"), default="fp32", help="of the model under an adapter"
    )


def run(args: argparse.Namespace) -> int:
    """Read the data first: a broken row should be known before a model is loaded."""
    if args.parent or args.steps or args.tasks or args.no_compile:
        args.usage_error(
            "--parent, --steps, --tasks and --no-compile belong to a preset, not to --data"
        )
    out = args.out or Path("out") / f"{Path(args.preset).name}-{args.data.stem}"
    ask_audit(args, args.preset)
    if args.lora is not None:
        refuse_several("sft --lora")
    enter(args, out, starts="programs", several=True)  # torch's optimisers import its compiler
    from ingle.engine.progress import progress
    from ingle.models import read_config, resolve_model
    from ingle.privacy.admission import admit
    from ingle.privacy.policy import load_policy
    from ingle.prompt.select import encoder_of
    from ingle.prompt.tokenizer import Tokenizer
    from ingle.training.finetuning.conversations import read_conversations
    from ingle.training.finetuning.finetune import finetune

    parent = resolve_model(args.preset)
    admit(parent, load_policy(args.policy), admission(args)["sealed"])
    if args.length is None:
        args.length = min(2048, read_config(parent).max_position_embeddings)
    tokenizer = Tokenizer.load(parent)
    encoder = encoder_of(parent, tokenizer)
    with progress(f"reading {args.data.name}", in_bytes=True) as show:
        dataset = read_conversations(
            args.data, encoder, tokenizer, args.length, args.skip_broken, show
        )
    tuning = _tuning(args, parent, dataset)
    if leads():
        _say(dataset, encoder.name)
    finetune(tuning, dataset.documents, out, args.stop_after, args.expert_parallel)
    if not leads():
        return 0
    if args.json:
        print(json.dumps(_as_json(tuning, dataset, out)))
    else:
        kind = "adapter" if tuning.lora else "model"
        print(f"{out} holds the {kind}; open {out / 'report.html'} for the curves.")
    return 0


def _tuning(args: argparse.Namespace, parent: Path, dataset: Dataset) -> FineTuning:
    from ingle.training.finetuning.finetune import fine_tuning
    from ingle.training.finetuning.lora import LoraConfig

    lora = None
    if args.lora is not None:
        alpha = 2.0 * args.lora if args.alpha is None else args.alpha
        lora = LoraConfig(args.lora, alpha, tuple(dict.fromkeys(args.target or _TARGETS)))
    elif args.alpha is not None or args.target:
        args.usage_error("--alpha and --target belong to --lora RANK")
    tuning = fine_tuning(
        parent, dataset, args.lr, lora=lora, length=args.length,
        streams=max(1, args.batch // max(1, args.length)), epochs=args.epochs,
        dtype=args.dtype, seed=args.seed or 0, save_every=args.save_every,
    )  # fmt: skip
    return divided(args, tuning)


def _say(dataset: Dataset, form: str) -> None:
    broken = dataset.broken
    print(
        f"{dataset.rows} conversations as {form}: {len(dataset.documents)} documents, "
        f"{dataset.documents.trained_tokens:,} tokens to learn.",
        file=sys.stderr,
    )
    if broken:
        print(f"{len(broken)} broken rows are left out:", file=sys.stderr)
    for row in broken[:_SHOWN]:
        print(f"  {row.words()}", file=sys.stderr)
    if len(broken) > _SHOWN:
        print("  ... (--json names them all)", file=sys.stderr)


def _as_json(tuning: FineTuning, dataset: Dataset, out: Path) -> dict[str, Any]:
    return {
        "run": tuning.name, "folder": str(out), "adapter": tuning.lora is not None,
        "rows": dataset.rows, "documents": len(dataset.documents),
        "trained_tokens": dataset.documents.trained_tokens,
        "broken": [{"line": row.line, "reason": row.reason} for row in dataset.broken],
    }  # fmt: skip
