"""Hostile behaviour below and around the bodies, by the number of its class.

Each function does its worst to a target and asserts the answers; the caller checks the harm.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx

from ingle.models.local import resolve_model
from ingle.prompt.tokenizer import Tokenizer
from tests.hostile.bodies import MARKS
from tests.hostile.target import CANARY, KNOWN, Target

CHAT = "/v1/chat/completions"
LONG = {"messages": [{"role": "user", "content": "Use 75, 6, 12 to make 3."}], "stream": True}
HEAD = b"Host: 127.0.0.1\r\nContent-Type: application/json\r\n"
IDLE = 10_000


def status(reply: bytes) -> int:
    """0 if the connection was closed without a word."""
    return int(reply.split(b" ", 2)[1]) if reply.startswith(b"HTTP/1.") else 0


def hosts(target: Target) -> None:
    """2: names that are not this server's."""
    lines = ["Host: x/?", "", "Host: 127.0.0.1\r\nHost: evil.example", "Host: a@127.0.0.1",
             "Host: evil.example", "Host: 127.0.0.1.evil.example", "Host: [::1",
             "Host: 127.0.0.1:x", "Host: \xff"]  # fmt: skip
    for line in lines:
        head = "\r\n".join(
            filter(None, ("GET /v1/models HTTP/1.1", line, "Connection: close", "\r\n"))
        )
        assert status(target.raw(head.encode("latin-1"))) in (400, 403, 421), line


def admin(target: Target) -> None:
    """5: nothing on this port changes the server."""
    names = ("load", "unload", "load_model", "update_weights", "start_profile", "sleep", "wake_up",
             "flush_cache", "reset_prefix_cache", "collective_rpc", "abort_request", "shutdown",
             "server_info", "v1/load_lora_adapter", "debug", "api/pull", "api/delete")  # fmt: skip
    for name in names:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            target.refused(target.client.request(method, f"/{name}"), 404, 405)


def sockets(target: Target) -> None:
    """7, 8: one listening socket, on the address asked for, and no other door."""
    own = {
        link.rsplit("[", 1)[1].rstrip("]")
        for entry in Path(f"/proc/{target.pid}/fd").iterdir()
        if (link := _link(entry)).startswith("socket:")
    }
    listening = []
    for table in (
        "tcp",
        "tcp6",
    ):  # of this network: the listener was made before the server left it
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            columns = row.split()
            if columns[3] == "0A" and columns[9] in own:
                listening.append(int(columns[1].rsplit(":", 1)[1], 16))
    assert listening == [target.address[1]]
    for table in ("udp", "udp6", "raw", "raw6", "packet", "netlink"):
        assert not own & set(Path(f"/proc/net/{table}").read_text().split())
        assert not own & set(Path(f"/proc/{target.pid}/net/{table}").read_text().split())
    bound = [row.split() for row in Path("/proc/net/unix").read_text().splitlines()[1:]]
    assert not [row for row in bound if row[6] in own and len(row) > 7]


def _link(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:
        return ""


def spelled_tags(target: Target) -> None:
    """27: text that spells a special token is text, in messages as in prompts."""
    tokenizer = Tokenizer.load(resolve_model(None))

    def special(text: str) -> list[list[int]]:
        bodies = ({"prompt": text}, {"messages": [{"role": "user", "content": text}]})
        found = [target.post("/tokenize", body).json()["tokens"] for body in bodies]
        return [[id_ for id_ in ids if tokenizer.is_special(id_)] for ids in found]

    for mark in MARKS:
        assert special(mark) == special("x"), mark


def wrong_frames(target: Target) -> None:
    """28: lengths, encodings and types that do not fit the body."""
    body = json.dumps(KNOWN).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
                 "application/xml", ""):  # fmt: skip
        target.refused(target.post(CHAT, body, Content_Type=kind), 415)
    for coding in ("gzip", "br", "zstd", "deflate"):
        target.refused(target.post(CHAT, b"\x1f\x8b" + bytes(100), Content_Encoding=coding), 415)
    start = b"POST /v1/chat/completions HTTP/1.1\r\n" + HEAD
    assert status(target.raw(start + b"Content-Length: 1000000000\r\n\r\n" + body, 3)) == 413
    assert status(target.raw(start + b"Content-Length: -5\r\n\r\n" + body)) == 400
    assert status(target.raw(start + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n")) == 400
    short = target.raw(start + b"Connection: close\r\nContent-Length: 5\r\n\r\n" + body)
    assert status(short) == 400  # what was cut is no JSON
    huge = b"8000000\r\n" + bytes(20 << 20)
    assert status(target.raw(start + b"Transfer-Encoding: chunked\r\n\r\n" + huge, 3)) in (0, 413)


def heads(target: Target) -> None:
    """29: heads that are too large or come too slowly."""
    assert status(target.raw(b"GET /health HTTP/1.1\r\nA: " + b"x" * (10 << 20))) in (0, 431)
    many = b"".join(b"A%d: x\r\n" % i for i in range(10_000))
    assert status(target.raw(b"GET /health HTTP/1.1\r\n" + HEAD + many + b"\r\n")) in (0, 431)
    assert status(target.raw(b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\n" + HEAD)) in (
        0,
        414,
        431,
    )
    began = time.monotonic()
    assert status(target.raw(b"GET /health HTTP/1.1\r\nHost: 127", 20)) == 408
    assert time.monotonic() - began < 15


def crowds(target: Target) -> None:
    """29: ten thousand connections that say nothing, or as many as this process may have; whoever
    asks is served meanwhile."""
    with ExitStack() as stack:
        opened = 0
        with suppress(OSError):
            for _ in range(IDLE):
                connection = stack.enter_context(socket.socket())
                connection.settimeout(5)
                connection.connect(target.address)
                opened += 1
        assert opened > 500
        reply = httpx.post(f"{target.url}{CHAT}", json=KNOWN, timeout=60, trust_env=False)
        assert reply.status_code == 200


def smuggling(target: Target) -> None:
    """30: two readings of one request."""
    post = b"POST /v1/chat/completions HTTP/1.1\r\n" + HEAD
    inner = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    for request in (
        post + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
        post + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        post + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
        b"CONNECT evil.example:80 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n X: folded\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        reply = target.raw(request)
        assert len(re.findall(rb"HTTP/1\.1 \d", reply)) <= 1, request
        assert status(reply) in (0, 400, 403, 404, 411, 415, 421, 505), request
    flood = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 1000
    assert status(target.raw(flood, 5)) in (0, 200)  # 0: cut off while still sending


def ranges(target: Target) -> None:
    """31: static files have no ranges."""
    asked = "bytes=" + ",".join(f"{i}-{i}" for i in range(5000))
    for headers in ({"Range": asked}, {"If-Range": "x" * 4000}, {"If-None-Match": '"' * 4000},
                    {"If-Modified-Since": "never"}, {"Range": "bytes=-1"}):  # fmt: skip
        assert target.client.get("/", headers=headers).status_code in (200, 400)


def leaving(target: Target) -> None:
    """32: clients that go, with and without goodbye, or never read."""
    body = json.dumps(LONG).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\n" + HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
    )
    for number in range(60):
        connection = socket.create_connection(target.address, timeout=10)
        connection.sendall(head + body[: len(body) // 2 if number % 3 == 0 else None])
        if number % 3 == 1:
            connection.recv(1)
        if number % 2:  # a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    end = time.monotonic() + 20
    while "ingle_requests_running 0" not in target.client.get("/metrics").text:
        assert time.monotonic() < end, "requests without a client go on"
        time.sleep(0.05)


def floods(target: Target) -> None:
    """33: more than the queue holds at once; the rest is told to come again."""
    found: Counter[int] = Counter()
    lock = threading.Lock()

    def one(_: int) -> None:
        reply = client.post(CHAT, json=KNOWN)
        assert reply.status_code != 429 or int(reply.headers["retry-after"]) >= 1
        with lock:
            found[reply.status_code] += 1

    limits = httpx.Limits(max_connections=None)
    with (
        httpx.Client(base_url=target.url, limits=limits, timeout=120, trust_env=False) as client,
        ThreadPoolExecutor(300) as pool,
    ):
        list(pool.map(one, range(600)))
    assert set(found) <= {200, 429} and found[200] and found[429]


def foreign_pages(target: Target) -> None:
    """47: what a page of another origin can make a browser send."""
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"},
                    {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}):  # fmt: skip
        reply = target.client.post(CHAT, json=KNOWN, headers=headers)
        target.refused(reply, 400, 403, 421)
        assert "access-control-allow-origin" not in reply.headers
    plain = target.client.post(
        CHAT, content=json.dumps(KNOWN), headers={"Content-Type": "text/plain"}
    )
    target.refused(plain, 415)
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    reply = target.client.options(CHAT, headers=preflight)
    assert reply.status_code >= 400 and "access-control-allow-origin" not in reply.headers
    socket_key = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\n"
    assert (
        status(target.raw(f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n{socket_key}\r\n".encode())) == 400
    )


def frames(target: Target) -> None:
    """48: the page shows in no other page."""
    assert "frame-ancestors 'none'" in target.client.get("/").headers["content-security-policy"]


def silent_log(target: Target) -> None:
    """45: what was said is in no line of the log, however it was asked and refused."""
    target.client.get(f"/v1/models?x={CANARY}")
    target.client.get(f"/{CANARY}", headers={"User-Agent": CANARY, "X-Request-Id": CANARY})
    target.post(CHAT, {"messages": [{"role": "user", "content": CANARY}], "max_tokens": 2})
    target.post(CHAT, {CANARY: CANARY})
    log = target.log.read_text()
    assert log.count("\n") > 4 and CANARY not in log
    assert CANARY not in target.client.get("/metrics").text


WIRES: dict[str, Callable[[Target], None]] = {
    "2": hosts, "5": admin, "7-8": sockets, "27-ids": spelled_tags,
    "28-frames": wrong_frames, "29-heads": heads,
    "29-crowds": crowds, "30": smuggling, "31": ranges, "32": leaving, "33": floods,
    "45": silent_log, "47": foreign_pages, "48": frames,
}  # fmt: skip
