"""`ingle ls`: the models on this machine, with size, kind and whether they fit."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ingle.cli.options import add_json
from ingle.errors import IngleError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from ingle.engine.storage import available_memory, weight_bytes
    from ingle.models.local import local_models
    from ingle.models.read import read_config

    memory = available_memory()
    rows = []
    for model in local_models():
        row: dict[str, Any] = {
            "name": model.name, "place": model.place, "folder": str(model.folder),
            "disk_bytes": model.disk_bytes,
        }  # fmt: skip
        try:
            config = read_config(model.folder)
        except IngleError as error:
            row |= {"model_type": None, "fits": None, "why": str(error)}
        else:
            kinds = [k for k in ("bf16", "int8", "int4") if weight_bytes(config, k) < 0.9 * memory]
            row |= {
                "model_type": config.model_type, "parameters": config.count_parameters(),
                "fits": kinds[0] if kinds else "",
            }  # fmt: skip
        rows.append(row)
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        words = {None: "not supported", "": "does not fit"}
        fits = words.get(row["fits"], f"fits in {row['fits']}")
        size = f"{row['disk_bytes'] / 1e9:.2f} GB"
        kind = row["model_type"] or "?"
        print(f"{row['name']:<48}{kind:<13}{size:>11}  {fits:<15}{row['place']}")
    return 0
