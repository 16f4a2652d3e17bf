"""Compile the native kernels in place, for a checkout that was not installed with a compiler.

An installed package has them already (CMakeLists.txt); both read the flags from native/flags.txt.
Run as `python -m ingle.kernels.cpu --build`.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent / "native"
X86 = ("x86_64", "AMD64", "x86-64")
V3 = {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


def runnable_targets() -> list[str]:
    """Targets whose instructions this machine has, fastest first."""
    if platform.machine() not in X86:
        return ["generic"]
    flags: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                flags = set(line.partition(":")[2].split())
                break
    except OSError:
        pass  # not Linux: the baseline runs everywhere
    wanted = [("x86-64-v4", V4), ("x86-64-v3", V3), ("x86-64", set[str]())]
    return [target for target, needs in wanted if needs <= flags]


def flags(target: str) -> list[str]:
    """Compiler flags of one target, the common ones first."""
    table = {}
    for line in (SOURCES / "flags.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, rest = (part.strip() for part in line.split("|"))
            table[name] = rest.split()
    return table["all"] + table[target]


def find_compiler() -> str | None:
    """$CXX, else the first C++ compiler on the path."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _run(command: list[str]) -> None:
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command[:1])} failed:\n{result.stderr.strip()[-2000:]}")


def build(target: str, destination: Path = SOURCES) -> Path:
    """Compile `target` and return the shared object; RuntimeError says why it failed."""
    compiler = find_compiler()
    if compiler is None:
        raise RuntimeError("no C++ compiler found: install g++ or clang++, or set CXX")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        options = flags(target)
        sources = sorted(SOURCES.glob("*.cpp"))
        objects = [str(folder / f"{source.stem}.o") for source in sources]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            commands = [
                [compiler, *options, "-c", str(source), "-o", made]
                for source, made in zip(sources, objects, strict=True)
            ]
            list(pool.map(_run, commands))
        made = folder / f"{target}.so"
        _run([compiler, *options, "-shared", *objects, "-o", str(made)])
        final = destination / made.name
        # moved into place whole: a process that has the old object mapped keeps it
        partial = final.with_suffix(f".{os.getpid()}.partial")
        shutil.copy(made, partial)
        partial.replace(final)
    return final
