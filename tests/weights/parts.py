"""Model folders with their weights in two files and an index, as real checkpoints are."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

PARTS = ("one.safetensors", "two.safetensors")


def split_weights(folder: Path) -> None:
    """Put model.safetensors into PARTS, every second tensor into each, with an index."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    weight_map = {}
    for start, part in enumerate(PARTS):
        some = names[start::2]
        save_file({name: tensors[name] for name in some}, folder / part, {"format": "pt"})
        weight_map |= dict.fromkeys(some, part)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
