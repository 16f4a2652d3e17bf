"""Time and memory of loading a folder, beside reading the same bytes; then a few tokens.

    python bench/load_checkpoint.py FOLDER [--quant int4 int8] [--tokens 32] [--json]

Each load runs in a process of its own, after the folder's files were dropped from the page cache.
The limit is `cat` of all shards, measured in the same run, cold as well. Peak memory is the
process's own (no mapped files), less what it had before it loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quant", nargs="+", default=["int4", "int8"])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(load(args.folder, args.child, args.tokens)))
        return
    rows = []
    for quant in args.quant:
        with tempfile.TemporaryDirectory(dir=args.folder) as cache:
            read = cold_read(args.folder)
            first = run(args, quant, cache)
            second = run(args, quant, cache)
            rows.append({"quant": quant, "read_seconds": read, "first": first, "second": second})
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        first, second = row["first"], row["second"]
        print(
            f"{row['quant']}: {first['seconds']:.1f} s, "
            f"{first['seconds'] / row['read_seconds']:.2f}x reading "
            f"({row['read_seconds']:.1f} s); peak {first['peak_bytes'] / 1e9:.2f} GB, "
            f"{first['peak_bytes'] / first['weight_bytes']:.2f}x the weights "
            f"({first['weight_bytes'] / 1e9:.2f} GB); second start {second['seconds']:.1f} s, "
            f"{second['seconds'] / first['seconds']:.2f}x the first; "
            f"{first['tokens_per_second']:.1f} tokens/s, {first['bandwidth_share']:.0%} of the "
            "measured memory speed"
        )


def run(args: argparse.Namespace, quant: str, cache: str) -> dict[str, Any]:
    drop(args.folder)
    command = [sys.executable, __file__, str(args.folder), "--child", quant]
    command += ["--tokens", str(args.tokens)]
    environment = {**os.environ, "INGLE_CACHE": cache}
    out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(out.stdout.splitlines()[-1])
    return found


def load(folder: Path, quant: str, tokens: int) -> dict[str, Any]:
    """In the child: load with the cache on, measure, generate."""
    from ingle import LLM, SamplingParams
    from ingle.engine.fit import measure_bandwidth
    from ingle.kernels.quantized import Quantized

    before = peak()
    started = time.perf_counter()
    llm = LLM(folder, quant=quant, keep_quantised=True, pages=64)  # type: ignore[arg-type]
    seconds = time.perf_counter() - started
    loaded = peak()
    weights = sum(p.nbytes for p in llm.model.parameters())  # type: ignore[attr-defined]
    for module in llm.model.modules():  # type: ignore[attr-defined]
        weights += sum(v.nbytes for v in vars(module).values() if isinstance(v, Quantized))
    params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    llm.generate([5, 6, 7], params)
    started = time.perf_counter()
    llm.generate([5, 6, 8], params)
    speed = tokens / (time.perf_counter() - started)
    active = llm.model.config.count_parameters(active=True) / llm.model.config.count_parameters()
    return {
        "seconds": seconds, "peak_bytes": loaded - before, "weight_bytes": weights,
        "tokens_per_second": speed,
        "bandwidth_share": speed * weights * active / measure_bandwidth(),
    }  # fmt: skip


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def drop(folder: Path) -> None:
    """Take the folder's files out of the page cache."""
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cold_read(folder: Path) -> float:
    drop(folder)
    started = time.perf_counter()
    shards = sorted(map(str, folder.glob("*.safetensors")))
    subprocess.run(["cat", *shards], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
