"""Where a run comes from: what is written beside each checkpoint so that it can be checked later.

Nothing here changes what is computed, and nothing names a path, a host, a person or a time.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ingle import __version__
from ingle.engine.progress import progress
from ingle.privacy.bom import BOM, make_bom
from ingle.privacy.digests import file_digest, hash_files
from ingle.privacy.source import code_digest, git_commit
from ingle.privacy.statement import (
    CHECKPOINT_FILES,
    PROVENANCE,
    canonical,
    digest_of,
    make_statement,
    read_canonical,
    write_bytes,
)
from ingle.training.data import Described, Mixture
from ingle.weights.header import INDEX, read_index

if TYPE_CHECKING:
    from ingle.models.config import ModelConfig

_LIBRARIES = ("torch", "numpy", "safetensors", "tokenizers")
Told = Callable[[int, int], None]
_OF_PARENT = (*CHECKPOINT_FILES[:-1], PROVENANCE)  # its optimiser's state is not used


class Traced(Protocol):
    """A run of any kind, as far as its folder says where it comes from; a dataclass."""

    @property
    def name(self) -> str: ...
    @property
    def mixture(self) -> Described: ...
    @property
    def model(self) -> ModelConfig: ...
    @property
    def parent(self) -> Path | None: ...


@dataclass(frozen=True)
class Origin:
    """What a run was made from. dependencies: in-toto resource descriptors."""

    name: str
    parameters: dict[str, Any]
    dependencies: list[dict[str, Any]]
    versions: dict[str, str]
    data: tuple[str, ...]

    def write(self, folder: Path, step: int) -> None:
        """State the files of the checkpoint just written: `provenance.json`, `bom.cdx.json`."""
        subjects = digests(folder, CHECKPOINT_FILES)
        statement = canonical(
            make_statement(subjects, self.parameters, step, self.dependencies, self.versions)
        )
        write_bytes(folder / PROVENANCE, statement)
        config = json.loads((folder / "config.json").read_text("utf-8"))
        bill = make_bom(
            self.name, f"step-{step}", config, subjects, file_digest(folder / PROVENANCE),
            self.versions, self.data,
        )  # fmt: skip
        write_bytes(folder / BOM, canonical(bill))


def origin_of(run: Traced, folder: Path, done: int) -> Origin:
    """The origin of a run that starts, or goes on after `done` steps, in `folder`.

    A run that goes on keeps what its checkpoint says about its start, and adds the code and the
    choices it goes on with where those are others.
    """
    parameters = describe(run)
    code = _code(done, parameters)
    earlier = _recorded(folder) if done else None
    if earlier is None:
        dependencies = [code, _data(run), *_models(run)]
    else:
        segments = [entry for entry in earlier if entry["name"] == "code"]
        if _but_step(segments[-1]) != _but_step(code):
            segments.append(code)
        dependencies = [*segments, _data(run), *(e for e in earlier if _is_model(e))]
    return Origin(run.name, parameters, dependencies, versions(), (run.mixture.describes(),))


def derived_from(parent: Path, name: str, parameters: dict[str, Any]) -> Origin:
    """The origin of weights that were rewritten and not trained, such as the shipped ones."""
    dependencies = [_code(0, parameters), *_digests("parent", parent)]
    return Origin(name, parameters, dependencies, versions(), ())


def describe(run: Traced) -> dict[str, Any]:
    """Every choice of a run as JSON values; where its models and data lie is none of them."""
    chosen = _without_paths(asdict(run))  # type: ignore[call-overload]
    chosen.pop("parent", None)
    described: dict[str, Any] = json.loads(json.dumps(chosen, default=str))
    return described


def _without_paths(chosen: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_paths(value) if isinstance(value, dict) else value
        for name, value in chosen.items()
        if not isinstance(value, Path)
    }


def digests(folder: Path, names: tuple[str, ...], told: Told | None = None) -> dict[str, str]:
    """SHA-256 of those of the named files that the folder has, and of weights in several files.

    The latter are the many gigabytes of a real checkpoint; an audit before the run has left their
    digests. told: hears (bytes done, bytes in all) of them.
    """
    found = {name: file_digest(folder / name) for name in names if (folder / name).is_file()}
    if parts := set(read_index(folder).values()):
        hashed = hash_files(folder, told)
        found |= {fact.path: fact.sha256 for fact in hashed if fact.path in {INDEX, *parts}}
    return found


def versions() -> dict[str, str]:
    """Of everything whose version can change a number."""
    found = {"ingle": __version__, "python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:  # imported from a source tree
            found[library] = "unknown"
    return found


def _code(step: int, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The code and the choices that made the checkpoint, from which step on.

    machine: its instruction set. parameters: their digest.
    """
    commit = git_commit()
    digest = {"sha256": code_digest()}
    if commit != "unknown":
        digest["gitCommit"] = commit
    annotations = versions() | {
        "machine": platform.machine(), "parameters": digest_of(parameters), "fromStep": str(step),
    }  # fmt: skip
    return {"name": "code", "digest": digest, "annotations": annotations}


def _data(run: Traced) -> dict[str, Any]:
    """What the data are: as the run describes them and, where they are generated, by what code."""
    description = {"mixture": describe(run)["mixture"]}
    if isinstance(run.mixture, Mixture):
        description |= {"generators": code_digest("tasks"), "split": "train"}
    return {
        "name": "data",
        "digest": {"sha256": digest_of(description)},
        "annotations": description,
    }


def _models(run: Traced) -> list[dict[str, Any]]:
    """Digests of the models a run starts from and, where it has one, learns from."""
    teacher: Path | None = getattr(run, "teacher", None)
    with progress("hashing what the run starts from", in_bytes=True) as told:
        return _digests("parent", run.parent, told) + _digests("teacher", teacher, told)


def _digests(role: str, folder: Path | None, told: Told | None = None) -> list[dict[str, Any]]:
    found = {} if folder is None else digests(folder, _OF_PARENT, told)
    return [
        {"name": f"{role}/{name}", "digest": {"sha256": digest}} for name, digest in found.items()
    ]


def _recorded(folder: Path) -> list[dict[str, Any]] | None:
    """Dependencies by the checkpoint's own statement, None where it has none that can be read."""
    statement = read_canonical(folder / PROVENANCE)
    try:
        assert statement is not None
        entries = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
        found = [{**entry, "digest": dict(entry["digest"])} for entry in entries]
        return found if any(entry["name"] == "code" for entry in found) else None
    except (AssertionError, KeyError, TypeError):
        return None


def _is_model(entry: Mapping[str, Any]) -> bool:
    return str(entry["name"]).startswith(("parent/", "teacher/"))


def _but_step(code: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    annotations = dict(code.get("annotations", {}))
    annotations.pop("fromStep", None)
    return dict(code["digest"]), annotations
