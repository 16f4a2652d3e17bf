"""Where models lie on this machine: folders, Hugging Face's cache, ModelScope's cache.

Nothing here opens a connection: an id is looked up among what was downloaded before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ingle.errors import ModelNotFoundError


@dataclass(frozen=True)
class LocalModel:
    """A model folder and the name it can be asked for by."""

    name: str
    folder: Path
    place: str  # "shipped", "Hugging Face cache", "ModelScope cache"

    @property
    def disk_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))


def resolve_model(model: str | Path | None = None) -> Path:
    """Folder of a model: the path given, an id in a cache, or the shipped reasoner for None.

    Raises ModelNotFoundError, also for a folder whose files lead out of it.
    """
    if model is None:
        return check_files(_shipped())
    folder = Path(model).expanduser()
    if folder.is_dir():
        return check_files(folder)
    if isinstance(model, str) and _is_id(model):
        for found in cached_models():
            if found.name == model:
                return check_files(found.folder)
        raise ModelNotFoundError(
            f"No folder {model!r}, and no such id in the caches of Hugging Face "
            f"({hub_cache()}) or ModelScope ({modelscope_cache()}). Download it with: "
            f"ingle pull {model}"
        )
    raise ModelNotFoundError(
        f"No folder {str(model)!r}. Give a folder in Hugging Face layout, an id that is in a "
        "cache, or no model at all for the shipped reasoner."
    )


def check_files(folder: Path) -> Path:
    """The folder, if its files are plain files inside it.

    Hugging Face's cache links files to its own `blobs` beside `snapshots`: that is allowed.
    """
    home = folder.resolve()
    inside = [home]
    if home.parent.name == "snapshots":
        inside.append(home.parent.parent / "blobs")
    for entry in home.iterdir():
        if entry.is_symlink() and not any(entry.resolve().is_relative_to(p) for p in inside):
            raise ModelNotFoundError(
                f"{entry.name} is a link that leads out of the model folder; copy the file into it."
            )
        if not (entry.is_file() or entry.is_dir()):  # a pipe would wait for ever, a device not end
            raise ModelNotFoundError(f"{entry.name} in the model folder is no plain file.")
    return folder


def cached_models() -> Iterator[LocalModel]:
    """Models of both caches that have a config, newest snapshot of each."""
    for entry in _folders(hub_cache()):
        if entry.name.startswith("models--") and (snapshot := _snapshot(entry)):
            name = entry.name.removeprefix("models--").replace("--", "/")
            yield LocalModel(name, snapshot, "Hugging Face cache")
    for base in (modelscope_cache() / "models", modelscope_cache()):
        for owner in _folders(base):
            for entry in _folders(owner):
                if (entry / "config.json").is_file():
                    # ModelScope writes a dot in a name as three underscores
                    name = f"{owner.name}/{entry.name}".replace("___", ".")
                    yield LocalModel(name, entry, "ModelScope cache")


def local_models() -> Iterator[LocalModel]:
    """The shipped reasoner, if there is one, then what the caches hold."""
    with suppress(ModelNotFoundError):
        yield LocalModel("(the shipped reasoner)", _shipped(), "shipped")
    yield from cached_models()


def hub_cache() -> Path:
    """As huggingface_hub finds it."""
    if path := os.environ.get("HF_HUB_CACHE"):
        return Path(path).expanduser()
    home = os.environ.get("HF_HOME")
    if home is None:
        cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
        home = f"{cache}/huggingface"
    return Path(home).expanduser() / "hub"


def modelscope_cache() -> Path:
    """As modelscope finds it."""
    return Path(os.environ.get("MODELSCOPE_CACHE", "~/.cache/modelscope")).expanduser() / "hub"


def _shipped() -> Path:
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "reasoner", package.parent / "reasoner"):
        if (folder / "config.json").is_file():
            return folder
    raise ModelNotFoundError(
        "This installation ships no reasoner; name a model folder, or train one: ingle train."
    )


def _snapshot(entry: Path) -> Path | None:
    """The snapshot that `main` names, else the newest one."""
    try:
        revision = (entry / "refs" / "main").read_text("utf-8").strip()
        named = entry / "snapshots" / revision
        if revision and Path(revision).name == revision and (named / "config.json").is_file():
            return named
    except (OSError, UnicodeDecodeError):
        pass  # a cache without a main branch: any snapshot will do
    found = [s for s in _folders(entry / "snapshots") if (s / "config.json").is_file()]
    return max(found, key=lambda s: s.stat().st_mtime, default=None)


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except OSError:
        return []


def _is_id(model: str) -> bool:
    owner, slash, name = model.partition("/")
    return bool(owner and slash and name) and "/" not in name and not model.startswith((".", "~"))
