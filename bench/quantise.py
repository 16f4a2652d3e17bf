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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ingle.kernels.quantized import Kind, Quantized
from ingle.models import build_model, load_model, resolve_model, save_model
from ingle.models.calibrate import input_importance
from ingle.models.causal_lm import CausalLM
from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import TASKS, Split, sample
from ingle.training.data import chat_document
from ingle.training.presets import model_preset

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
    tests, training = documents(tokenizer, count, "test"), documents(tokenizer, count, "train")
    exact = load_model(folder)
    text = torch.tensor([[token for tokens, _ in training for token in tokens][:2048]])
    # one document a row would be the honest shape; joined, they differ only in what is attended
    importance = input_importance(exact, text[:, : exact.config.max_position_embeddings])
    rows = []
    for kind in KINDS:
        rows.append(compare(exact, load_model(folder, quant=kind), tests, "reasoner", kind))
    fitted = load_model(folder, quant="int4", importance=importance)
    return [*rows, compare(exact, fitted, tests, "reasoner", "int4, calibrated")]


def documents(tokenizer: Tokenizer, count: int, split: Split) -> list[tuple[list[int], Tensor]]:
    """Worked examples with the places whose next token the model writes."""
    rng, found = random.Random(f"bench:{split}"), []
    for index in range(count):
        task = list(TASKS)[index % len(TASKS)]
        document = chat_document([], sample(rng, task, TASKS[task].LEVELS[-1], split), tokenizer)
        found.append((document.tokens, torch.tensor(document.train[1:])))
    return found


def random_shapes() -> list[dict[str, Any]]:
    import tempfile

    rows = []
    for preset in ("nano", "tiny"):
        with tempfile.TemporaryDirectory() as where:
            save_model(build_model(model_preset(preset), seed=1), Path(where), torch.float32)
            exact = load_model(where)
            generator = torch.Generator().manual_seed(2)
            ids = torch.randint(0, 512, (8, 65), generator=generator).tolist()
            texts = [(row, torch.ones(64, dtype=torch.bool)) for row in ids]
            for kind in KINDS:
                rows.append(
                    compare(exact, load_model(where, quant=kind), texts, f"random {preset}", kind)
                )
    return rows


@torch.no_grad()
def compare(
    exact: CausalLM, other: CausalLM, texts: list[tuple[list[int], Tensor]], name: str, kind: str
) -> dict[str, Any]:
    total = agree = places = 0.0
    for tokens, written in texts:
        ids = torch.tensor([tokens])
        p, q = (model(ids)[0, :-1][written].log_softmax(-1) for model in (exact, other))
        total += float((p.exp() * (p - q)).sum())
        agree += float((p.argmax(-1) == q.argmax(-1)).sum())
        places += len(p)
    return {"model": name, "kind": kind, "kl": total / places, "agree": agree / places,
            "megabytes": weight_bytes(other) / 1e6}  # fmt: skip


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
