"""An adapter folded into its base: a model folder that any program can serve."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ingle.errors import ConfigError
from ingle.training.commit import replacing
from ingle.training.origin import derived_from, digests
from ingle.weights.adapter import CONFIG, WEIGHTS, AdaptedCheckpoint
from ingle.weights.header import INDEX
from ingle.weights.safetensors import save_tensors

# What a model folder needs beside its weights, and its licence.
COMPANIONS = (
    "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja",
    "LICENSE",
)  # fmt: skip


def merge_adapter(
    base: Path, adapter: Path, out: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write `base` with `adapter` in it to `out`: the same files, tensor names and dtypes.

    One file of weights is in memory at a time. progress: told how many files are done. Raises
    ConfigError where `out` holds something, WeightsError for an adapter that does not fit, and
    NotSavedError where the disk is full, which leaves nothing behind.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out.name} is not empty; choose a new folder.")
    with AdaptedCheckpoint(base, adapter) as weights, replacing(out) as new:
        files = sorted({entry.file for entry in weights.entries.values()})
        for done, number in enumerate(files, 1):
            tensors = {
                name: weights.read(name).to(entry.dtype)
                for name, entry in weights.entries.items()
                if entry.file == number
            }
            save_tensors(new / weights.files[number].name, tensors, {"format": "pt"})
            if progress is not None:
                progress(done, len(files))
        for name in ("config.json", INDEX, *COMPANIONS):
            if (base / name).is_file():
                shutil.copyfile(base / name, new / name)
        origin = derived_from(base, out.name, {"operation": "merge an adapter"})
        parts = [
            {"name": f"adapter/{name}", "digest": {"sha256": digest}}
            for name, digest in digests(adapter, (CONFIG, WEIGHTS)).items()
        ]
        replace(origin, dependencies=[*origin.dependencies, *parts]).write(new, 0)
