"""A run's `metrics.jsonl`: its configuration, then one JSON line a step."""

from __future__ import annotations

import json
import sys
from collections import deque
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from ingle.training.origin import Traced


class JsonLines:
    """A file of JSON objects with a step each, to which a run appends and from which it goes on.

    A run killed after its last checkpoint has written of steps that it will now repeat: those are
    cut off. kept: what is left.
    """

    def __init__(self, path: Path, done: int, head: dict[str, Any] | None = None) -> None:
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        entries = [entry for entry in map(_read, lines) if entry is not None]
        self.kept = [entry for entry in entries if entry.get("step", -1) < done]
        if head is not None and not self.kept:
            self.kept = [head]
        path.write_text("".join(map(_line, self.kept)), "utf-8")
        self._file = path.open("a", encoding="utf-8")

    def write(self, entry: dict[str, Any]) -> None:
        self._file.write(_line(entry))
        self._file.flush()


class MetricsLog(JsonLines):
    """`metrics.jsonl` of a run, and its progress on stderr."""

    def __init__(self, folder: Path, run: Traced, done: int) -> None:
        config = asdict(run)  # type: ignore[call-overload]
        head = json.loads(json.dumps({"run": run.name, "config": config}, default=str))
        super().__init__(folder / "metrics.jsonl", done, head)
        self.smooth: float | None = None
        self._first = True
        self._seconds: deque[float] = deque(maxlen=20)

    def average(self, value: float) -> float:
        """The moving average of what is watched, over about twenty steps."""
        self.smooth = value if self.smooth is None else 0.95 * self.smooth + 0.05 * value
        return self.smooth

    def left(self, seconds: float, steps: int) -> str:
        """How long `steps` more will take, after one that took `seconds`: by the median of the last
        ones, as a step may write a checkpoint or be short of data. The first one of a process
        compiles and says nothing about the others."""
        if self._first:
            self._first = False
            return f"{steps:,} steps left"
        self._seconds.append(seconds)
        return f"{median(self._seconds) * steps / 60:.0f} min left"

    def show(self, step: int, text: str, every: int) -> None:
        """Progress: in place on a terminal, else now and then a line."""
        terminal = sys.stderr.isatty()
        if terminal or step % every == 0:
            print(text, file=sys.stderr, end="\r" if terminal else "\n")


def _read(line: str) -> dict[str, Any] | None:
    """A line's object; None for one that broke off, as the last may have when the disk was full."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry) + "\n"
