"""The real server on a real socket, over an engine in this process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from scripted import scripted_engine

from ingle.cli.loading import load
from ingle.prompt.deepseek_v31 import DeepSeekV31
from ingle.server.app import create_app
from ingle.server.guard import Access
from ingle.server.service import EngineService, ServedModel

SCRIPTED = "scripted-v31"
KEY = "a-key-for-these-tests-only"


@dataclass(frozen=True)
class Live:
    """A running server. base: the URL that clients of the OpenAI API are given."""

    url: str
    model: str
    service: EngineService

    @property
    def base(self) -> str:
        return f"{self.url}/v1"

    def idle(self, seconds: float = 10.0) -> bool:
        """Whether all requests end within some seconds."""
        end = time.monotonic() + seconds
        while self.service.open_requests:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True


@contextmanager
def serve(service: EngineService, access: Access | None = None) -> Iterator[Live]:
    """Listen on a free port of this machine for as long as the block runs."""
    app = create_app(service, access, drain_seconds=0.0)
    config = uvicorn.Config(app, log_level="warning", access_log=False, ws="none")
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield Live(f"http://127.0.0.1:{listener.getsockname()[1]}", service.model.name, service)
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def scripted_service(**options: object) -> EngineService:
    """The model that answers by rule; options: fields of EngineConfig."""
    engine = scripted_engine(**options)
    model = ServedModel(SCRIPTED, "fp_scripted", 1, encoder=DeepSeekV31())
    assert engine.tokenizer is not None
    return EngineService(engine, engine.tokenizer, model)


def reasoner_service() -> EngineService:
    """The shipped reasoner, set up as `ingle serve` does."""
    loaded = load(None, max_sequences=8, max_waiting=64)
    model = ServedModel(loaded.name, loaded.fingerprint, 1, loaded.defaults, encoder=loaded.encoder)
    return EngineService(loaded.engine, loaded.tokenizer, model)
