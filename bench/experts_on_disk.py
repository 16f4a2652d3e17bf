"""A mixture that is larger than the memory: tokens a second, and the share of the disk's speed.

    python bench/experts_on_disk.py FOLDER --memory 3.0 [--tokens 16] [--json]

The model runs in a process that a control group forbids more memory than --memory (GB; Linux, as
root), so that the kernel itself enforces the limit, page cache included. The limit of the disk is
measured in the same run on the same file, cold. Where no group can be made, only ingle's own limit
holds, and the line says so. The same run without a limit is the peer, if the model fits at all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GROUPS = Path("/sys/fs/cgroup")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--memory", type=float, required=True, metavar="GB")
    parser.add_argument("--quant", default="int4")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(run(args)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as cache:
        rows = {
            name: child(args, cache, limit)
            for name, limit in (("first start", args.memory), ("second start", args.memory),
                                ("no limit", None))
        }  # fmt: skip
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    for name, row in rows.items():
        limit = "limit by the kernel" if row["enforced"] else "no limit by the kernel"
        print(
            f"{name}: ready in {row['start_seconds']:.0f} s, {row['tokens_per_second']:.2f} "
            f"tokens/s; {row['kept_gb']:.2f} of {row['experts_gb']:.2f} GB of experts kept in "
            f"memory; {row['report']}; {limit}; {row['swapped_mb']:.0f} MB swapped"
        )


def limited_group(limit: int) -> Path | None:
    """A control group for the child; None where this user may not make one."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        folder = GROUPS / controllers / path.lstrip("/") / f"ingle-bench-{os.getpid()}"
        try:
            folder.mkdir(exist_ok=True)
            name = "memory.max" if not controllers else "memory.limit_in_bytes"
            (folder / name).write_text(str(limit))
            return folder
        except OSError:
            continue
    return None


def child(args: argparse.Namespace, cache: str, limit: float | None) -> dict[str, Any]:
    group = None if limit is None else limited_group(int(limit * 1e9))
    command = [sys.executable, __file__, str(args.folder), "--child", "--memory", str(limit or 0)]
    command += ["--quant", args.quant, "--tokens", str(args.tokens)]
    environment = {**os.environ, "INGLE_CACHE": cache, "INGLE_BENCH_GROUP": str(group or "")}
    out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    if group is not None:
        group.rmdir()
    found: dict[str, Any] = json.loads(out.stdout.splitlines()[-1])
    return found | {"enforced": group is not None}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """In the child: enter the group, load, generate."""
    if group := os.environ["INGLE_BENCH_GROUP"]:
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    from ingle import LLM, SamplingParams
    from ingle.weights.paging import PagingStats

    started = time.perf_counter()
    # with no group to hold it, ingle is told the limit itself
    told = int(args.memory * 1e9) if args.memory and not group else None
    llm = LLM(args.folder, quant=args.quant, pages=64, max_sequences=1, expert_bytes=told)
    start = time.perf_counter() - started
    if args.memory and llm.mapped is None:
        raise SystemExit("The model fits into this memory: give less.")
    params = SamplingParams(temperature=0.0, max_tokens=args.tokens, ignore_eos=True)
    llm.generate([5, 6, 7], params)
    started = time.perf_counter()
    llm.generate([5, 6, 8], params)
    seconds = time.perf_counter() - started
    stats = llm.mapped.stats if llm.mapped else PagingStats()
    status = Path("/proc/self/status").read_text()
    swapped = next((x for x in status.splitlines() if x.startswith("VmSwap:")), "VmSwap: 0 kB")
    return {
        "start_seconds": start,
        "tokens_per_second": args.tokens / seconds,
        "report": llm.mapped.report() if llm.mapped else "all in memory",
        "kept_gb": stats.limit / 1e9, "experts_gb": stats.experts / 1e9,
        "swapped_mb": int(swapped.split()[1]) / 1e3,
    }  # fmt: skip


if __name__ == "__main__":
    main()
