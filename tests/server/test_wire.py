"""Hostile bytes on raw connections: a typed refusal, a closed connection, nobody else harmed."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ingle.server.wire import Wire

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
POST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
)
BODY = json.dumps({"messages": [{"role": "user", "content": "What is 47 + 85?"}]}).encode()


def connect(live) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(live.url.rpartition(":")[2])), timeout=20)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def send(live, data: bytes) -> bytes:
    with connect(live) as connection:
        connection.sendall(data)
        return read_all(connection)


def refusal(reply: bytes) -> tuple[int, str]:
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.fixture(autouse=True)
def healthy_afterwards(live, eventually):
    """The postcondition of every row: alive, the same answer, no connection or descriptor kept."""
    live.client.get("/health")  # the client keeps its connection: two descriptors in this process
    assert eventually(lambda: live.wire.open == 1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert live.client.get("/health").json()["status"] == "ok"
    assert live.chat().json()["choices"][0]["message"]["content"] == "132 é"
    assert live.engine.open == {}
    assert eventually(lambda: live.wire.open == 1)
    assert eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)


MALFORMED = {
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "negative length": POST + b"Content-Length: -5\r\n\r\nhello",
    "length of 10^30": POST + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\nhello",
    "unknown transfer coding": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "bare line feeds": b"GET /health HTTP/1.1\nHost: localhost\n\n",
    "folded header": GET + b" folded\r\n\r\n",
    "blank before colon": GET + b"X : y\r\n\r\n",
    "nul in a header": GET + b"X: \x00\r\n\r\n",
    "carriage return in a header": GET + b"X: a\rb\r\n\r\n",
    "URL of another host": b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "URL of another port": b"GET http://localhost:1/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    "noise": bytes(range(256)) * 4,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_requests_are_400_and_closed(live, data):
    assert refusal(send(live, data)) == (400, "bad_request")


@pytest.mark.parametrize(
    "data",
    [
        GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
        GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["websocket", "h2c", "h2c with a body", "connect"],
)
def test_upgrades_are_refused_in_words(live, data):
    assert refusal(send(live, data)) == (400, "no_upgrade")


def test_a_whole_url_of_this_host_is_a_path(live):
    """As clients send it that take us for a proxy."""
    reply = send(
        live, GET.replace(b"GET /", b"GET http://localhost/") + b"Connection: close\r\n\r\n"
    )
    assert reply.startswith(b"HTTP/1.1 200")


def test_broken_chunks_do_not_reach_the_engine(live):
    live.engine.seen.clear()
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    for junk in (b"ZZ\r\n\r\n", b"-1\r\n\r\n", b"5\r\nhelloXX", b"f" * 40 + b"\r\n"):
        send(live, head + junk)
    assert not live.engine.seen


def test_a_trailer_is_no_header(live):
    data = POST.replace(b"Host: localhost\r\n", b"") + b"Transfer-Encoding: chunked\r\n"
    chunk = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n"
    reply = send(
        live, data + b"Connection: close\r\n\r\n" + chunk + b"0\r\nHost: localhost\r\n\r\n"
    )
    assert b'"code":"invalid_host"' in reply


def test_http_1_0_is_answered_and_closed(live):
    reply = send(live, b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 200") and b"connection: close" in reply.lower()


def test_requests_sent_ahead_are_answered_in_order_up_to_a_number(live):
    ask = POST + b"Content-Length: %d\r\n" % len(BODY)
    reply = send(live, (ask + b"\r\n" + BODY) * 3 + GET + b"Connection: close\r\n\r\n")
    assert reply.count(b"HTTP/1.1 200") == 4 and reply.rindex(b"status") > reply.rindex(b"132")
    with connect(live) as connection:
        connection.sendall((ask + b"\r\n" + BODY) * 500)
        assert read_all(connection).count(b"HTTP/1.1") < 25


LARGE = {
    "one header of 10 MB": GET + b"X: " + b"x" * 10_000_000,
    "10^4 headers": GET + b"".join(b"X%d: y\r\n" % i for i in range(10_000)) + b"\r\n",
    "101 headers": GET + b"X: y\r\n" * 100 + b"\r\n",
    "path of 100 kB": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "path without end": b"GET /" + b"x" * 10_000_000,
}


@pytest.mark.parametrize("data", LARGE.values(), ids=LARGE.keys())
def test_heads_that_are_too_large_are_431_in_little_memory(live, data):
    before = resident()
    with connect(live) as connection:
        with suppress(OSError):  # it stopped reading: what it had to say is there all the same
            connection.sendall(data)
        try:
            assert refusal(read_all(connection)) == (431, "head_too_large")
        except ConnectionResetError:
            assert len(data) > live.wire.discard_bytes // 2
    assert resident() - before < 8 << 20


def test_the_largest_head_allowed_passes(live):
    fill = b"X: " + b"x" * 60_000 + b"\r\n" + b"Y: z\r\n" * 90
    assert send(live, GET + fill + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_body_without_end_after_its_answer_is_cut_off(live, monkeypatch):
    monkeypatch.setattr(live.wire, "discard_bytes", 1 << 20)
    with connect(live) as connection:
        connection.sendall(POST + b"Content-Length: 1000000000\r\n\r\n")
        with pytest.raises(OSError):
            for _ in range(1000):
                connection.sendall(b"x" * (1 << 16))


def test_compressed_bodies_are_refused_unread(live):
    head = (
        POST
        + b"Content-Encoding: gzip\r\nConnection: close\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x00"
    )
    assert send(live, head).startswith(b"HTTP/1.1 415")


def test_duplicate_keys_and_nul_and_bom_are_answers_not_crashes(live):
    for body, status in (
        (b'{"messages":[],"messages":[{"role":"user","content":"x"}]}', b"200"),
        (b'{"messages":[{"role":"user","content":"\\u0000"}]}', b"200"),
        (b'\xef\xbb\xbf{"messages":[]}', b"400"),
    ):
        head = POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert send(live, head + body).split()[1] == status


# --- clients that take their time: servers of their own, with little patience ---


@pytest.fixture
def impatient(tokenizer, scripted, start):
    def run(**limits):
        patience = {"head_seconds": 0.3, "keep_alive_seconds": 1, "linger_seconds": 0.3} | limits
        return start(scripted(tokenizer), wire=Wire(**patience))

    return run


def test_slow_heads_are_408_and_silent_connections_closed(impatient):
    with impatient() as live:
        with connect(live) as silent:
            started = time.monotonic()
            assert read_all(silent) == b""
            assert 0.2 < time.monotonic() - started < 5
        with connect(live) as slow:
            slow.sendall(GET)
            assert refusal(read_all(slow)) == (408, "request_timeout")
        with connect(live) as dripping:
            dripping.settimeout(0.05)
            reply, end = b"", time.monotonic() + 10
            while time.monotonic() < end:
                try:
                    dripping.sendall(b"G" if not reply else b"")
                    reply += dripping.recv(1000)
                    if reply:
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            assert time.monotonic() < end  # a byte now and then does not keep it open
        assert live.chat().status_code == 200


def test_idle_connections_end_and_busy_ones_do_not(impatient, eventually):
    with impatient(keep_alive_seconds=1) as live:
        live.engine.step_seconds = 0.06
        with connect(live) as connection:
            connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
            reply = connection.recv(1 << 16)  # after seconds of work, longer than all patience
            assert b"132" in reply
            started = time.monotonic()
            assert connection.recv(10) == b""
            assert 0.5 < time.monotonic() - started < 5


def test_slow_bodies_are_408(impatient, monkeypatch):
    monkeypatch.setattr("ingle.server.body.READ_SECONDS", 0.3)
    with impatient(discard_seconds=0.3) as live, connect(live) as connection:
        connection.sendall(POST + b"Content-Length: 100\r\n\r\n{")
        reply = read_all(connection)
        assert reply.startswith(b"HTTP/1.1 408")


def test_a_body_that_drips_on_after_its_answer_is_cut_off(impatient):
    with impatient(discard_seconds=0.5) as live, connect(live) as connection:
        connection.sendall(POST + b"Content-Length: 1000000000\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413")
        started = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < started + 10:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert live.wire.refused["slow_body"] == 1


def test_half_a_request_sent_ahead_does_not_cut_the_answer_before_it(impatient):
    with impatient() as live, connect(live) as connection:
        live.engine.step_seconds = 0.03
        head = POST + b"Content-Length: %d\r\n\r\n" % len(BODY)
        connection.sendall(head + BODY + b"GET /hea")
        reply = read_all(connection)
        assert b"132" in reply and reply.count(b"HTTP/1.1 200") == 1
        assert reply.count(b"HTTP/1.1 408") == 1  # once it is its turn


@pytest.mark.slow
def test_a_reader_that_reads_nothing_is_cut_off(tokenizer, scripted, start, eventually):
    engine = scripted(tokenizer, reasoning="7+5=12 " * 15_000, context=10**6)
    with start(engine, wire=Wire(write_seconds=0.3)) as live, connect(live) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = BODY[:-1] + b',"stream":true,"logprobs":true,"top_logprobs":2}'
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert eventually(lambda: live.wire.refused["reads_nothing"] == 1, 60)
        assert eventually(lambda: not engine.open and not live.service.open_requests)
        assert len(engine.cancelled) == 1


def test_the_longest_idle_makes_room_and_others_are_served(impatient):
    with impatient(connections=8, head_seconds=30.0) as live:
        crowd = [connect(live) for _ in range(200)]
        for _ in range(3):
            assert live.chat().status_code == 200
        assert live.wire.open <= 8
        assert live.wire.refused["idle"] >= 190
        for connection in crowd:
            connection.close()


def test_when_all_are_busy_the_newcomer_is_told(tokenizer, scripted, start, eventually):
    engine = scripted(tokenizer, step_seconds=0.05)
    with start(engine, wire=Wire(connections=2)) as live:
        busy = [connect(live) for _ in range(2)]
        for connection in busy:
            connection.sendall(
                POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
            )
        assert eventually(lambda: len(engine.open) == 2)
        with connect(live) as newcomer:
            reply = read_all(newcomer)
        assert refusal(reply) == (503, "too_many_connections") and b"Retry-After: 1" in reply
        for connection in busy:
            assert b"132" in read_all(connection)
            connection.close()
        assert eventually(lambda: live.wire.open == 0)
        assert live.chat().status_code == 200


def test_a_flood_of_nonsense_leaves_no_trace(live, eventually):
    for data in MALFORMED.values():
        send(live, data)
    before = resident()
    for _ in range(60):
        for data in MALFORMED.values():
            send(live, data)
    assert resident() - before < 0.05 * before
