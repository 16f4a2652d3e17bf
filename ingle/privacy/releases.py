"""The table of known releases, `known_models.json`: what is known, and how each row was obtained.

It is short on purpose: a digest stands there only if the files, or a list that names them, were at
hand. A model that is not in it is "unverified", never "ok".
"""

from __future__ import annotations

from importlib.resources import files

import msgspec


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One release. commit: "" where it has none of its own. files: path -> SHA-256.
    licence: an SPDX id. native: whether ingle has model code of its own for it."""

    repository: str
    commit: str
    architecture: str
    licence: str
    native: bool
    files: dict[str, str]
    obtained: str


class KnownFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file that occurs in releases, such as a tokenizer."""

    what: str
    sha256: str
    obtained: str


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    releases: tuple[Release, ...]
    files: tuple[KnownFile, ...]


def releases() -> tuple[Release, ...]:
    """Every release of the table."""
    return _table().releases


def known_files() -> tuple[KnownFile, ...]:
    """Every single file of the table."""
    return _table().files


def _table() -> _Table:
    raw = files("ingle.privacy").joinpath("known_models.json").read_bytes()
    return msgspec.json.decode(raw, type=_Table)
