"""`ingle serve` as its own process, and what must hold after anything was done to it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

KNOWN = {"messages": [{"role": "user", "content": "47+85="}], "temperature": 0, "max_tokens": 200}
CANARY = "CANARY-5d1f0c"  # in every hostile body that can carry it
LEAK = re.compile(rf"0x[0-9a-f]{{6,}}|/root|/home|/work|/tmp|\.py\b|Traceback|{CANARY}")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Target:
    """A running server. log: its standard error so far, a line a request."""

    url: str
    pid: int
    client: httpx.Client
    log: Path
    answer: str = ""
    resident: int = 0
    files: int = 0

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").rstrip("/").rsplit(":", 1)
        return host, int(port)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Bytes as they are, anything else as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.client.post(path, content=content, headers=headers)

    def raw(self, data: bytes, seconds: float = 15.0) -> bytes:
        """All that comes back on a connection of its own until it closes or falls silent."""
        reply = b""
        with socket.create_connection(self.address, timeout=seconds) as connection:
            try:
                connection.sendall(data)
                while part := connection.recv(1 << 16):
                    reply += part
            except (TimeoutError, ConnectionError, BrokenPipeError):
                pass
        return reply

    def refused(self, reply: httpx.Response, *statuses: int) -> None:
        """The reply has one of the statuses and, if it is an error, the one shape of errors."""
        assert reply.status_code in statuses, (reply.status_code, reply.text[:300])
        if reply.status_code >= 400 and reply.request.method != "HEAD":
            error = reply.json()["error"]
            assert {"message", "type", "code"} <= set(error)
            assert not LEAK.search(reply.text), reply.text[:300]

    # --- what must hold ---

    def measure(self) -> None:
        """Take what is there now for the state to return to."""
        self.answer, self.resident, self.files = self._ask(), self._resident(), self._files()

    def check_unharmed(self) -> None:
        """Healthy, the same answer, no file more, no more memory than five per cent above."""
        assert self.client.get("/health").status_code == 200
        assert self._ask() == self.answer
        end = time.monotonic() + 10
        while (files := self._files()) > self.files and time.monotonic() < end:
            time.sleep(0.05)  # connections that linger for their client's sake
        assert files <= self.files
        assert self._resident() <= 1.05 * self.resident

    def _ask(self) -> str:
        message = self.post("/v1/chat/completions", KNOWN).json()["choices"][0]["message"]
        return json.dumps([message["reasoning_content"], message["content"]])

    def _resident(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE

    def _files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@contextmanager
def serving(folder: Path, *options: str, key: str = "") -> Iterator[Target]:
    """`ingle serve` with these options, warm; key: a client's, of a file among the options."""
    log = folder / "log"
    command = [sys.executable, "-m", "ingle", "serve", "--port", "0", "--json", "--log", "json"]
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            url = json.loads(line)["url"].rstrip("/")
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            with httpx.Client(base_url=url, timeout=60, trust_env=False, headers=headers) as client:
                target = Target(url, process.pid, client, log)
                for _ in range(3):
                    target.measure()
                yield target
        finally:
            process.terminate()
            process.wait(30)
