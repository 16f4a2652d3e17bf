"""What a run's folder says about itself: its steps and totals, its stage, and where it came from.

Only `metrics.jsonl` names the folder that a run started from; `provenance.json` has its digests.
So a parent is taken for one only where the file there is the one that the run started from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingle.errors import ConfigError
from ingle.privacy.digests import file_digest
from ingle.privacy.statement import PROVENANCE, read_canonical

METRICS, WEIGHTS = "metrics.jsonl", "model.safetensors"
TAIL = 50  # steps whose mean is the state of a run


@dataclass(frozen=True)
class Stage:
    """One run as its folder tells it. tokens: trained ones, or of rollouts. balance: mean MaxVio of
    the last TAIL steps, None without a router. dead: experts without a token in the last step that
    trained."""

    folder: Path
    name: str
    config: Mapping[str, Any]
    steps: int
    tokens: int
    minutes: float
    balance: float | None
    dead: int | None

    @property
    def kind(self) -> str:
        """What is done in such a run."""
        config = self.config
        mixture = config.get("mixture") or {}
        if "objective" in config:
            return "reinforcement learning on verifiable rewards"
        if "way" in config:
            return f"distillation ({config['way']})"
        if "epochs" in config:
            adapter = ", low-rank adapters" if config.get("lora") else ""
            return f"fine-tuning on conversations{adapter}"
        if "chat" not in mixture:
            return "training"
        return "fine-tuning on chats" if mixture["chat"] else "pre-training on worked examples"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file; none where there is no file. A line that is none, as the last
    one of a killed run may be, is left out."""
    found = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found


def numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line."""
    return {
        key: value for key, value in entry.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }  # fmt: skip


def seconds_of(entry: Mapping[str, float]) -> float:
    """Of a step, which may be told by phases."""
    phases = (value for key, value in entry.items() if key.startswith("seconds_"))
    return entry["seconds"] if "seconds" in entry else sum(phases)


def tail_mean(steps: Sequence[Mapping[str, Any]], key: str) -> tuple[float, int] | None:
    """Mean of a number over those of the last TAIL steps that have it, and how many those are."""
    values = [found[key] for found in map(numbers, steps[-TAIL:]) if key in found]
    return (sum(values) / len(values), len(values)) if values else None


def read_stage(folder: Path) -> Stage | None:
    """What the folder's metrics tell; None where it has none."""
    lines = read_lines(folder / METRICS)
    steps = [line for line in lines if "step" in line]
    if not lines:
        return None
    head = next((line for line in lines if "config" in line), {})
    told = [numbers(line) for line in steps]
    balance = tail_mean(steps, "max_violation")
    return Stage(
        folder, str(head.get("run", folder.name)), head.get("config") or {},
        steps=int(told[-1]["step"]) + 1 if told else 0,
        tokens=int(sum(t.get("trained_tokens", t.get("rollout_tokens", 0)) for t in told)),
        minutes=sum(map(seconds_of, told)) / 60,
        balance=balance and balance[0],
        dead=next((int(t["dead_experts"]) for t in reversed(told) if "dead_experts" in t), None),
    )  # fmt: skip


def digests_of_parent(folder: Path) -> dict[str, str]:
    """File -> SHA-256 of the model that a run started from, by its statement; {} without one."""
    statement = read_canonical(folder / PROVENANCE)
    try:
        assert statement is not None
        entries = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
        return {
            entry["name"].removeprefix("parent/"): str(entry["digest"]["sha256"])
            for entry in entries
            if entry["name"].startswith("parent/")
        }
    except (AssertionError, LookupError, TypeError, AttributeError):
        return {}


def is_parent(folder: Path, candidate: Path) -> bool:
    """Whether a run in `folder` started from the very weights that lie in the other folder."""
    stated = digests_of_parent(folder).items()
    weights = {name: digest for name, digest in stated if name.endswith(".safetensors")}
    files = [candidate / name for name in weights]
    return (
        bool(files)
        and all(file.parent == candidate for file in files)  # a statement could name any place
        and all(file.is_file() for file in files)  # before any of many gigabytes is read
        and all(file_digest(candidate / name) == digest for name, digest in weights.items())
    )


def is_of_these_weights(folder: Path, evaluation: Mapping[str, Any]) -> bool:
    """Whether what was evaluated is what lies in the folder now, as far as its statement tells."""
    measured = evaluation["after"].get("sha256")
    statement = read_canonical(folder / PROVENANCE)
    if measured is None or statement is None:
        return True
    try:
        stated = {e["name"]: e["digest"]["sha256"] for e in statement["subject"]}
    except (LookupError, TypeError):
        return True
    return bool(stated.get(WEIGHTS, measured) == measured)


def parent_of(folder: Path) -> Path:
    """The folder that a run started from; ConfigError where it has none, or it is not to be found.

    It is looked for where the run had it and, as folders are moved together, beside the run.
    """
    stage = read_stage(folder)
    named = None if stage is None else stage.config.get("parent")
    if not named:
        raise ConfigError(f"{folder.name} does not say which model it started from; name it.")
    places = (Path(named), folder.resolve().parent / Path(named).name)
    for place in places:
        if is_parent(folder, place):
            return place
    raise ConfigError(
        f"{Path(named).name}, from which {folder.name} started, is not here as it was then; name "
        "the folder to compare with."
    )


def lineage(folder: Path) -> list[Stage]:
    """The stages that led to a folder, the first one first, as far back as their folders are."""
    found: list[Stage] = []
    seen: set[Path] = set()
    place: Path | None = folder
    while place is not None and place.resolve() not in seen:
        seen.add(place.resolve())
        stage = read_stage(place)
        if stage is None:
            break
        found.insert(0, stage)
        try:
            place = parent_of(place)
        except ConfigError:
            place = None
    return found
