"""Bytes hashed a second and core by `privacy/digests.py`, against hashlib on bytes in memory.

    python bench/audit_hash.py [--megabytes 512] [--files 4]

Time is processor time, so that other work on the machine does not count; the files are in the page
cache. The limit is one `hashlib.sha256` over one block that stays in the processor's cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from hashlib import sha256
from pathlib import Path

from ingle.privacy.digests import hash_files

BLOCK = 1 << 20


def limit(megabytes: int) -> float:
    block, digest = os.urandom(BLOCK), sha256()
    started = time.process_time()
    for _ in range(megabytes):
        digest.update(block)
    return megabytes * BLOCK / (time.process_time() - started)


def timed(folder: Path, total: int, state: str) -> float:
    """state: name of a state directory; a new one knows no file yet."""
    os.environ["INGLE_CACHE"] = str(folder.parent / state)
    started = time.process_time()
    facts = hash_files(folder)
    assert all(fact.sha256 for fact in facts)
    return total / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--files", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, block = Path(name) / "model", os.urandom(BLOCK)
        folder.mkdir()
        for index in range(args.files):
            with (folder / f"{index}.safetensors").open("wb") as file:
                for _ in range(args.megabytes // args.files):
                    file.write(block)
        total = args.megabytes // args.files * args.files * BLOCK
        timed(folder, total, "first")  # brings the files into the page cache
        ours, most = timed(folder, total, "second"), limit(args.megabytes)
        time.sleep(2.5)  # then the time stamps are old enough to be relied on
        timed(folder, total, "third")
        started = time.perf_counter()
        hash_files(folder)
        again = time.perf_counter() - started
    print(f"hashlib in memory  {most / 1e9:5.2f} GB/s a core")
    print(f"hash_files         {ours / 1e9:5.2f} GB/s a core, {ours / most:.0%} of it")
    print(f"unchanged files    {again * 1e3:5.2f} ms for {total / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
