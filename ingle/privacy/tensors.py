"""config.json and the headers of all safetensors files: are they whole, and of one model?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ingle.errors import ConfigError, IngleError, ModelNotFoundError, WeightsError
from ingle.models.config import ModelConfig
from ingle.models.read import FAMILIES, parse_config, read_json, unknown_keys
from ingle.privacy.facts import Check, Finding, Identity, Severity, Weights, text_of
from ingle.privacy.folder import Entry
from ingle.privacy.identity import compare_tensors, describe, recognise
from ingle.weights.header import INDEX, read_header, read_index

_TRAINING = "training.safetensors"  # what a run of ingle goes on from; nothing serves it
_INTEGERS = ("I64", "I32", "I16", "I8", "U8", "BOOL")


class Tensors(msgspec.Struct, frozen=True, kw_only=True):
    """What this part of the audit gives."""

    identity: Identity
    weights: Weights
    findings: tuple[Finding, ...]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at: the folder, its name for people, and its entries that can be read."""

    folder: Path
    name: str
    paths: frozenset[str]
    shards: tuple[str, ...]


def place_of(folder: Path, name: str, entries: list[Entry]) -> Place:
    readable = [entry for entry in entries if entry.source is not None]
    return Place(
        folder=folder,
        name=name,
        paths=frozenset(entry.path for entry in readable),
        shards=tuple(entry.path for entry in readable if entry.kind == "safetensors"),
    )


def examine_tensors(place: Place) -> Tensors:
    """Identity and weights, and all that is wrong with them."""
    look = _Look(place)
    look.read_config()
    look.read_shards()
    look.compare()
    return look.result()


class _Look:
    """Collects from the config, then the headers, then their comparison."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.config: ModelConfig | None = None
        self.model_type = self.architecture = self.recognised = ""
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: Counter[str] = Counter()
        self.bytes = 0
        self.checks: list[Check] = []
        self.findings: list[Finding] = []

    def add(self, name: str, severity: Severity, file: str, sentence: str) -> None:
        self.findings.append(
            Finding(id=name, severity=severity, file=file, sentence=text_of(sentence))
        )

    def check(self, name: str, sentence: str, failed: bool) -> None:
        status = "failed" if failed else "ok"
        self.checks.append(Check(id=name, status=status, sentence=sentence))  # type: ignore[arg-type]

    def read_config(self) -> None:
        if "config.json" not in self.place.paths:
            self.add("config.none", "doubt", "", "The folder holds no config.json.")
            return
        try:
            raw = read_json(self.place.folder / "config.json")
        except (ConfigError, ModelNotFoundError, OSError):
            self.add("config.damaged", "refuse", "config.json", "Not one JSON object.")
            return
        claimed, listed = raw.get("model_type"), raw.get("architectures")
        self.model_type = text_of(claimed[:100]) if isinstance(claimed, str) else ""
        if isinstance(listed, list) and listed and isinstance(listed[0], str):
            self.architecture = text_of(listed[0][:100])
        if self.model_type not in FAMILIES:
            sentence = f"ingle has no code of its own for model_type {self.model_type!r}."
            self.add("config.family", "doubt", "config.json", sentence)
            return
        try:
            self.config = parse_config(raw)
        except (ConfigError, ArithmeticError, TypeError, ValueError) as error:
            known = isinstance(error, ConfigError)
            sentence = str(error)[:500] if known else "config.json holds impossible values."
            self.add("config.refused", "refuse", "config.json", sentence)
            return
        if self.architecture and self.architecture != self.config.architecture:
            sentence = f"architectures names {self.architecture}, model_type {self.model_type}."
            self.add("identity.architecture", "doubt", "config.json", sentence)
        if unknown := [text_of(key[:100]) for key in unknown_keys(raw)[:20]]:
            sentence = f"Keys that mean nothing here: {', '.join(unknown)}."
            self.add("config.unknown-keys", "note", "config.json", sentence)

    def read_shards(self) -> None:
        """Headers of all shards; a tensor belongs to one shard, the one the index says."""
        shards, index = self.place.shards, self._index()
        if not shards:
            self.add("weights.none", "doubt", "", "The folder holds no safetensors file.")
            return
        belong = set(index.values()) or {"model.safetensors"}
        for path in sorted(set(shards) - belong):
            sentence = "A file of tensors that neither is the model nor is in its index."
            severity: Severity = "note" if path == _TRAINING else "doubt"
            self.add("weights.extra", severity, path, sentence)
        home: dict[str, str] = {}
        for path in shards:
            try:
                header = read_header(self.place.folder / path)[0]
            except (WeightsError, OSError) as error:
                self.add("weights.damaged", "refuse", path, str(error)[:500])
                continue
            for name, entry in header.items():
                low, high = entry["data_offsets"]
                self.bytes += high - low
                self.dtypes[entry["dtype"]] += math.prod(entry["shape"])
                if path not in belong:
                    continue
                if name in home:
                    sentence = f"The tensor {name[:200]!r} is in more than one file."
                    self.add("weights.twice", "refuse", path, sentence)
                home[name] = path
                self.shapes[name] = tuple(entry["shape"])
                if entry["dtype"] in _INTEGERS and self.config is not None:
                    sentence = f"The tensor {name[:200]!r} holds whole numbers."
                    self.add("weights.integers", "refuse", path, sentence)
        if any(home.get(name) != file for name, file in index.items()):
            self.add("weights.index", "refuse", INDEX, "The index names what is not there.")
        damaged = {f.id for f in self.findings} & {"weights.damaged", "weights.twice"}
        self.check(
            "headers", "Every header is whole, and its tensors fill the file.", bool(damaged)
        )

    def compare(self) -> None:
        """Against the architecture that the names belong to, and the config's own sizes."""
        if not self.shapes:
            return
        self.recognised = recognise(self.shapes, self.model_type)
        if self.model_type and self.recognised != self.model_type:
            severity: Severity = "refuse" if self.recognised else "doubt"
            found = self.recognised or "no known architecture"
            sentence = f"config.json says {self.model_type}, the tensors are of {found}."
            self.add("identity.mismatch", severity, "config.json", sentence)
        elif self.config is not None:
            for word, names in compare_tensors(self.config, self.shapes).items():
                self.check(word, f"No tensor is {word}, by config.json.", bool(names))
                if names:
                    sentence = f"{len(names)} tensors are {word}, such as {min(names)[:200]!r}."
                    self.add(f"weights.{word}", "refuse", "", sentence)

    def result(self) -> Tensors:
        parameters = sum(math.prod(shape) for shape in self.shapes.values())
        identity = Identity(
            name=self.place.name,
            model_type=self.model_type,
            architecture=self.architecture,
            recognised=self.recognised,
            supported=self.model_type in FAMILIES,
            parameters=parameters,
            config_parameters=self.config.count_parameters() if self.config else 0,
            sentence=describe(self.place.name, self.recognised, parameters),
        )
        weights = Weights(
            files=len(self.place.shards),
            tensors=len(self.shapes),
            bytes=self.bytes,
            dtypes=dict(sorted(self.dtypes.items())),
            checks=tuple(self.checks),
        )
        return Tensors(identity=identity, weights=weights, findings=_few(self.findings))

    def _index(self) -> Mapping[str, str]:
        if INDEX not in self.place.paths:
            return {}
        try:
            return read_index(self.place.folder)
        except (IngleError, OSError) as error:
            self.add("weights.index", "refuse", INDEX, str(error)[:500])
            return {}


def _few(findings: list[Finding]) -> tuple[Finding, ...]:
    """At most ten of one kind: a hostile header can be wrong in a hundred thousand places."""
    counts: Counter[str] = Counter()
    kept = []
    for finding in findings:
        counts[finding.id] += 1
        if counts[finding.id] <= 10:
            kept.append(finding)
    return tuple(kept)
