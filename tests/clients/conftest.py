"""Servers that the tests of all clients share; each client is a user's, with nothing patched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from serving import KEY, Live, reasoner_service, scripted_service, serve

from ingle.server.guard import Access
from ingle.server.keys import read_key_file


@pytest.fixture(scope="session", autouse=True)
def no_proxy() -> Iterator[None]:
    """Clients read proxies from the environment; the way to this machine leads past them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, ",".join(filter(None, (os.environ.get(name), "127.0.0.1"))))
        yield


@pytest.fixture(scope="session")
def scripted() -> Iterator[Live]:
    """A server whose every reply is known beforehand: see `scripted.py`."""
    with serve(scripted_service()) as live:
        yield live


@pytest.fixture(scope="session")
def reasoner() -> Iterator[Live]:
    """The shipped reasoner."""
    with serve(reasoner_service()) as live:
        yield live


@pytest.fixture
def start() -> Callable[..., AbstractContextManager[Live]]:
    """A scripted server of one's own; options: fields of EngineConfig."""

    def start(**options: object) -> AbstractContextManager[Live]:
        return serve(scripted_service(**options))

    return start


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A scripted server that asks for KEY."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.touch(0o600)
    file.write_text(f"{KEY}\n")
    with serve(scripted_service(), Access(keys=read_key_file(file))) as live:
        yield live
