"""What rounding costs: KL to fp32 per token, in nats, and the bytes it saves.

    python bench/quantise.py [MODEL] [--documents 64] [--json]

On the shipped reasoner the text is worked examples of the test split, with the positions that the
model writes itself; int4 is also rounded for a calibration text (worked examples of the training
split). A row of random matrices, whose rounding nothing can help, shows the floor of each format.
The reference is the same model in fp32, in the same run.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import torch

from ingle.kernels.quantized import Kind, Quantized
from ingle.models import build_model, load_model, resolve_model, save_model
from ingle.models.calibrate import input_importance
from ingle.models.causal_lm import CausalLM
from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import TASKS, Split, sample
from ingle.training.data import Document, PackedBatch, chat_document, pack
from ingle.training.presets import model_preset

SPLITS: tuple[Split, ...] = ("test", "train")
KINDS: tuple[Kind, ...] = ("int8", "fp8", "int4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = shipped(resolve_model(args.model), args.documents) + random_shapes()
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['model']:<22}{row['kind']:<18}KL {row['kl']:.5f}   same best token "
              f"{row['agree']:.2%}   {row['megabytes']:.1f} MB")  # fmt: skip


def shipped(folder: Path, count: int) -> list[dict[str, Any]]:
    tokenizer = Tokenizer.load(folder)
    tests, training = (worked(tokenizer, count, split) for split in SPLITS)
    exact = load_model(folder)
    importance = input_importance(
        exact, training.tokens_T[None, : exact.config.max_position_embeddings]
    )
    rows = [compare(exact, load_model(folder, quant=k), tests, "reasoner", k) for k in KINDS]
    fitted = load_model(folder, quant="int4", importance=importance)
    return [*rows, compare(exact, fitted, tests, "reasoner", "int4, calibrated")]


def worked(tokenizer: Tokenizer, count: int, split: Split) -> PackedBatch:
    """Worked examples of all tasks' last trained levels in one stream."""
    rng, found = random.Random(f"bench:{split}"), []
    for index in range(count):
        task = list(TASKS)[index % len(TASKS)]
        problem = sample(rng, task, TASKS[task].LEVELS[-1], split)
        found.append(chat_document([], problem, tokenizer))
    return stream(found)


def stream(documents: list[Document]) -> PackedBatch:
    size = sum(len(document.tokens) for document in documents)
    return pack(iter([*documents, Document([0], [False])]), size, size, 0)


def random_shapes() -> list[dict[str, Any]]:
    rows = []
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, 512, (8, 65), generator=generator).tolist()
    texts = stream([Document(row, [True] * len(row)) for row in ids])
    for preset in ("nano", "tiny"):
        with tempfile.TemporaryDirectory() as where:
            save_model(build_model(model_preset(preset), seed=1), Path(where), torch.float32)
            exact = load_model(where)
            for kind in KINDS:
                other = load_model(where, quant=kind)
                rows.append(compare(exact, other, texts, f"random {preset}", kind))
    return rows


@torch.no_grad()
def compare(
    exact: CausalLM, other: CausalLM, text: PackedBatch, name: str, kind: str
) -> dict[str, Any]:
    written = text.targets_T != -100  # the places whose next token the model writes itself
    p, q = (
        m(text.tokens_T[None], text.starts_T)[0, written].log_softmax(-1) for m in (exact, other)
    )
    return {
        "model": name, "kind": kind, "kl": float((p.exp() * (p - q)).sum(-1).mean()),
        "agree": float((p.argmax(-1) == q.argmax(-1)).float().mean()),
        "megabytes": weight_bytes(other) / 1e6,
    }  # fmt: skip


def weight_bytes(model: CausalLM) -> int:
    plain = sum(p.nbytes for p in model.parameters())
    return plain + sum(
        weight.nbytes
        for module in model.modules()
        for weight in vars(module).values()
        if isinstance(weight, Quantized)
    )


if __name__ == "__main__":
    main()
