"""A hub on 127.0.0.1 that answers what `ingle pull` asks of the real one, and can misbehave."""

from __future__ import annotations

import hashlib
import json
import random
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from ingle.cli.main import main

COMMIT = "c0ffee" * 6 + "c0ff"
REPO = "owner/tiny"
WEIGHTS = random.Random(7).randbytes(300_000)


@dataclass
class Seen:
    method: str
    host: str
    path: str
    headers: dict[str, str]
    status: int | None = None
    sent: int = 0  # bytes of the body

    @property
    def line(self) -> tuple[str, str, str, int | None, int]:
        return (self.method, self.host, self.path, self.status, self.sent)


@dataclass
class FakeHub:
    """files are in the repository, `large` of them in storage, which is another host name."""

    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    seen: list[Seen] = field(default_factory=list)
    token: str | None = None  # without it: 401
    gated: bool = False  # the list is public, the files are not
    ranges: bool = True
    served: dict[str, bytes] = field(default_factory=dict)  # instead of what the list promises
    cut_after: dict[str, list[int]] = field(default_factory=dict)  # bytes, once for each entry
    on_cut: Callable[[], None] = lambda: None
    statuses: dict[str, list[int]] = field(default_factory=dict)  # by name, "" is the list
    change_list: Callable[[dict[str, Any]], Any] = lambda reply: reply
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def gets(self, name: str) -> list[Seen]:
        """The requests that brought bytes of a file."""
        place = f"/storage/{sha256(self.files[name])}" if name in self.large else f"/{name}"
        return [seen for seen in self.seen if seen.path.endswith(place)]

    def listing(self) -> dict[str, Any]:
        siblings = []
        for name, data in self.files.items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git_sha1(data)}
            if name in self.large:
                lfs = {"sha256": sha256(data), "size": len(data), "pointerSize": 130}
                entry |= {"lfs": lfs, "blobId": git_sha1(b"the pointer of " + name.encode())}
            siblings.append(entry)
        return {"id": REPO, "sha": COMMIT, "siblings": siblings}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.seen = Seen(self.command, headers["host"], url.path, headers)
        self.hub.seen.append(self.seen)
        path = unquote(url.path)
        if match := re.fullmatch(f"/api/models/{REPO}/revision/(.+)", path):
            self.list_files(match[1], url.query)
        elif match := re.fullmatch(f"/{REPO}/resolve/{COMMIT}/(.+)", path):
            self.resolve(match[1])
        elif match := re.fullmatch("/storage/([0-9a-f]{64})", path):
            assert "Signature=" in url.query
            name = next(n for n in self.hub.large if sha256(self.hub.files[n]) == match[1])
            self.file(name)
        else:
            self.reply(404, b'{"error": "Repository not found"}', {"x-error-code": "RepoNotFound"})

    do_HEAD = do_POST = do_GET

    def list_files(self, revision: str, query: str) -> None:
        assert query.lower() == "blobs=true", query
        if revision not in ("main", COMMIT, "refs/pr/1"):
            return self.reply(404, b"{}", {"x-error-code": "RevisionNotFound"})
        if self.misbehaves("") or self.stranger():
            return None
        reply = self.hub.change_list(self.hub.listing())
        return self.reply(200, reply if isinstance(reply, bytes) else json.dumps(reply).encode())

    def resolve(self, name: str) -> None:
        if self.hub.gated:
            return self.reply(403, b"{}", {"x-error-code": "GatedRepo"})
        if self.misbehaves(name) or self.stranger():
            return None
        if name not in self.hub.large:
            return self.file(name)
        digest = sha256(self.hub.files[name])
        place = f"http://localhost:{self.hub.port}/storage/{digest}?Signature=s3cret-signature"
        return self.reply(302, b"Found", {"location": place})

    def file(self, name: str) -> None:
        data = self.hub.served.get(name, self.hub.files[name])
        wanted = re.fullmatch("bytes=([0-9]+)-", self.seen.headers.get("range", ""))
        start = int(wanted[1]) if wanted and self.hub.ranges else 0
        extra = {"content-range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        cuts = self.hub.cut_after.get(name)
        self.reply(206 if start else 200, data[start:], extra, cuts.pop(0) if cuts else None)

    def misbehaves(self, name: str) -> bool:
        if statuses := self.hub.statuses.get(name):
            self.reply(statuses.pop(0), b"{}")
            return True
        return False

    def stranger(self) -> bool:
        if self.hub.token is None:
            return False
        if self.seen.headers.get("authorization") == f"Bearer {self.hub.token}":
            return False
        self.reply(401, b'{"error": "Invalid username or password."}')
        return True

    def reply(
        self, status: int, body: bytes, headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:  # fmt: skip
        self.seen.status = status
        self.seen.sent = len(body[:cut])
        self.send_response(status)
        for key, value in {**(headers or {}), "content-length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.hub.on_cut()
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: FakeHub) -> None:
        self.errors: list[BaseException] = []  # what a request should never have caused
        super().__init__(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.errors.append(error)


def start(hub: FakeHub) -> Server:
    server = Server(hub)
    hub.port = server.server_address[1]
    # the default poll of half a second would be paid at the end of every test
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def pull(capsys: Any, *options: str, repo: str = REPO) -> tuple[int, dict, str]:
    """Exit code, the reply of --json and what went to stderr."""
    code = main(["pull", repo, "--json", *options])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


def receipt(reply: dict) -> list[tuple]:
    """The requests of a reply, in the form of Seen.line."""
    return sorted(tuple(request.values()) for request in reply["requests"])
