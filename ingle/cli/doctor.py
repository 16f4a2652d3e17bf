"""`ingle doctor [MODEL]`: does a model fit, and how fast can it be, before it is loaded."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ingle.cli.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="folder (its config.json is enough) or cached id"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from ingle.engine.fit import cache_bytes, disk_fit, fits, lineage, measure_bandwidth, parts
    from ingle.engine.storage import available_memory
    from ingle.models.local import resolve_model
    from ingle.models.read import parse_config, read_json, unknown_keys

    folder = resolve_model(args.model)
    raw = read_json(folder / "config.json")
    config = parse_config(raw)
    memory, bandwidth = available_memory(), measure_bandwidth()
    ways = fits(config, memory, bandwidth)
    facts: dict[str, Any] = {
        "model": args.model or "the shipped reasoner",
        "model_type": config.model_type,
        "what": lineage(config, str(args.model or "")),
        "parameters": config.count_parameters(),
        "active_parameters": config.count_parameters(active=True),
        "disk_bytes": sum(f.stat().st_size for f in folder.glob("*.safetensors")),
        "parts": parts(config),
        "cache_bytes_per_token": cache_bytes(config),
        "context": config.max_position_embeddings,
        "free_memory_bytes": memory,
        "bandwidth_bytes_per_second": round(bandwidth),
        "ways": [vars(way) for way in ways],
        "unknown_keys": unknown_keys(raw),
    }
    disk = disk_fit(config, memory)
    facts["on_disk"] = None if disk is None else vars(disk)
    facts["advice"] = _advice(facts)
    print(json.dumps(facts, indent=2) if args.json else _text(facts))
    return 0


def _advice(facts: dict[str, Any]) -> str:
    """One sentence that says what to do."""
    by_kind = {way["kind"]: way for way in facts["ways"]}
    for kind in ("bf16", "int8", "int4"):
        way = by_kind[kind]
        if not way["context"] or (kind == "bf16" and way["weights"] > 2 << 30):
            continue
        command = f"ingle serve {facts['model'] if facts['disk_bytes'] else 'MODEL'} --quant {kind}"
        return (
            f"It fits in {kind}: {command.replace(' the shipped reasoner', '')} (at most "
            f"{way['tokens_per_second']:,.3g} tokens a second, context {way['context']:,})."
        )
    if (way := facts["on_disk"]) is not None:
        speed = 1e9 / max(1, way["read_per_token"])
        return (
            "It is larger than the memory and runs with its experts on disk (--quant int4), of "
            f"which {way['share']:.0%} fit into memory: with a disk that reads 1 GB a second at "
            f"most {speed:.2g} tokens a second. The quantised file needs "
            f"{_bytes(way['rest'] + way['experts'])} of disk beside the model."
        )
    need, free = _bytes(by_kind["int4"]["weights"]), _bytes(facts["free_memory_bytes"])
    return (
        f"It does not fit: even in int4 its weights take {need} and {free} are free. Take a "
        "smaller model, or a machine with more memory."
    )


def _text(facts: dict[str, Any]) -> str:
    lines = [f"{facts['model']} ({facts['model_type']}). {facts['what']}", ""]
    if facts["disk_bytes"]:
        lines.append(f"on disk                 {_bytes(facts['disk_bytes']):>10}")
    lines.append(f"free memory             {_bytes(facts['free_memory_bytes']):>10}")
    lines.append(
        f"memory speed, measured  {_bytes(facts['bandwidth_bytes_per_second']):>10} a second"
    )
    lines.append(f"cache of one token      {_bytes(facts['cache_bytes_per_token']):>10} in bf16")
    kinds = [way["kind"] for way in facts["ways"]]
    lines += ["", f"{'':<24}" + "".join(f"{kind:>12}" for kind in kinds)]
    from ingle.engine.storage import BITS

    for name, count in facts["parts"].items():
        row = "".join(f"{_bytes(count * BITS[kind] / 8):>12}" for kind in kinds)
        lines.append(f"{name:<24}{row}")
    ways = facts["ways"]
    lines.append(f"{'all weights':<24}" + "".join(f"{_bytes(w['weights']):>12}" for w in ways))
    contexts = (f"{w['context']:,}" if w["context"] else "no room" for w in ways)
    lines.append(f"{'longest context here':<24}" + "".join(f"{c:>12}" for c in contexts))
    speeds = (f"{w['tokens_per_second']:,.3g}" for w in ways)
    lines.append(f"{'tokens a second, most':<24}" + "".join(f"{s:>12}" for s in speeds))
    if facts["unknown_keys"]:
        lines += ["", f"Keys of config.json not known here: {', '.join(facts['unknown_keys'])}."]
    return "\n".join([*lines, "", facts["advice"]])


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
