"""Asking an OpenAI-compatible endpoint: order, keys, overload, and everything that can go wrong."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ingle.hub import endpoint as module
from ingle.hub.endpoint import Endpoint, EndpointError, Reply, read_key

BODY = {"messages": [{"role": "user", "content": "7"}], "temperature": 0.0}
KEY = "sk-of-these-tests"


def completion(text: str, **message: Any) -> dict[str, Any]:
    return {
        "choices": [{"message": {"content": text, **message}, "finish_reason": "stop"}],
        "usage": {"completion_tokens": 3},
    }


@dataclass
class Peer:
    """Echoes the last message, once the replies that were laid out for it are used up."""

    script: list[tuple[int, dict[str, str], Any]] = field(default_factory=list)
    seen: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    pause: float = 0.0
    together: int = 0  # most requests at a time
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    open: int = 0

    def answer(self, path: str, headers: dict[str, str], body: Any) -> tuple[int, dict, Any]:
        with self.lock:
            self.seen.append((path, headers, body))
            self.open += 1
            self.together = max(self.together, self.open)
            laid_out = self.script.pop(0) if self.script else None
        time.sleep(self.pause)
        with self.lock:
            self.open -= 1
        return laid_out or (200, {}, completion(body["messages"][-1]["content"]))


@contextmanager
def listening(peer: Peer) -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more, reply = peer.answer(self.path, headers, body)
            if status == 0:  # hang up
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "peer", KEY)
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # the way to this machine needs none


def ask_one(*script: tuple[int, dict[str, str], Any]) -> tuple[Reply | None, Peer]:
    peer = Peer(list(script))
    with listening(peer) as endpoint:
        return endpoint.chat([BODY])[0], peer


def test_answers_come_in_the_order_of_the_questions_and_some_at_a_time() -> None:
    peer = Peer(pause=0.02)
    bodies = [{"messages": [{"role": "user", "content": str(i)}]} for i in range(40)]
    told: list[tuple[int, int]] = []
    with listening(peer) as endpoint:
        replies = endpoint.chat(bodies, 5, lambda done, total: told.append((done, total)))
    assert [reply.text for reply in replies if reply] == [str(i) for i in range(40)]
    assert 2 <= peer.together <= 5
    assert told == [(i, 40) for i in range(1, 41)]


def test_what_is_sent() -> None:
    reply, peer = ask_one()
    ((path, headers, body),) = peer.seen
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body == {"model": "peer", **BODY}
    assert reply == Reply("7", "", 3, cut=False)


@pytest.mark.parametrize("ending", ["", "/", "/chat/completions"])
def test_the_address_may_end_in_several_ways(ending: str) -> None:
    peer = Peer()
    with listening(peer) as endpoint:
        Endpoint(endpoint.url + ending, "peer").chat([BODY])
    ((path, headers, _),) = peer.seen
    assert path == "/v1/chat/completions"
    assert "authorization" not in headers


def test_overload_is_waited_out_for_as_long_as_it_says() -> None:
    started = time.monotonic()
    reply, peer = ask_one((429, {"Retry-After": "1"}, {}), (503, {}, {}), (500, {}, b"<html>"))
    assert reply is not None and reply.text == "7"
    assert len(peer.seen) == 4
    assert 1.0 < time.monotonic() - started < 5.0


def test_a_lost_connection_is_tried_again() -> None:
    reply, peer = ask_one((0, {}, {}))
    assert reply is not None and reply.text == "7"
    assert len(peer.seen) == 2


def test_lasting_overload_and_long_waits_are_errors() -> None:
    with pytest.raises(EndpointError, match="answered 503, 6 times"):
        ask_one(*[(503, {}, {})] * module.TRIES)
    with pytest.raises(EndpointError, match="come back in 3600 seconds"):
        ask_one((429, {"Retry-After": "3600"}, {}))


@pytest.mark.parametrize(
    ("status", "reply", "said"),
    [
        (401, {"error": {"message": "Bad key"}}, "check the key file"),
        (404, {"error": {"message": "No model peer"}}, "It says: No model peer"),
        (400, {"error": "temperature\x1b[31m"}, r"It says: temperature \[31m$"),
        (422, [], "answered 422"),
        (308, {}, "redirects elsewhere"),
        (200, {"object": "list"}, "did not answer as OpenAI's"),
        (200, b"<html>login</html>", "did not answer as OpenAI's"),
        (200, {"choices": []}, "did not answer as OpenAI's"),
        (200, b"[" * 100_000, "did not answer as OpenAI's"),
        (200, completion("7") | {"usage": {"completion_tokens": math.inf}}, "did not answer as"),
        (200, [1], "did not answer as OpenAI's"),
    ],
)
def test_refusals_are_named_at_once_and_hold_no_key(status: int, reply: Any, said: str) -> None:
    peer = Peer([(status, {"location": "http://127.0.0.1:9/"}, reply)] * 9)
    with listening(peer) as endpoint, pytest.raises(EndpointError, match=said) as error:
        endpoint.chat([BODY] * 8, 1)
    assert KEY not in str(error.value) + repr(endpoint)
    time.sleep(0.05)
    assert len(peer.seen) == 1  # nothing is asked after it


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"code": "context_length_exceeded", "message": "Ask for less."}),
        (400, {"type": "exceed_context_size_error", "message": "too large"}),
        (400, {"message": "This model's maximum context length is 64 tokens."}),
    ],
)
def test_a_question_that_is_too_long_is_no_failure(status: int, error: dict[str, str]) -> None:
    assert ask_one((status, {}, {"error": error}))[0] is None


def test_thoughts_are_kept_apart_wherever_they_stand() -> None:
    for reply in (
        completion("7", reasoning_content="so"),
        completion("7", reasoning="so"),
        completion("<think>so</think>\n\n7"),
    ):
        found, _ = ask_one((200, {}, reply))
        assert found is not None and (found.text, found.reasoning) == ("7", "so")
    cut = completion("", reasoning_content="so") | {"usage": None}
    cut["choices"][0] |= {"finish_reason": "length"}
    cut["choices"][0]["message"]["content"] = None
    assert ask_one((200, {}, cut))[0] == Reply("", "so", 0, cut=True)


def test_nobody_there_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(EndpointError, match=f"127.0.0.1:{port} cannot be reached"):
        Endpoint(f"http://127.0.0.1:{port}/v1", "peer").chat([BODY] * 20)
    assert time.monotonic() - started < 2.0


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8765", "ftp://host/v1", "http://", "https://user:pw@host/v1", "https://h/v1?key=1",
     "http://h:99999/v1", "http://[::1/v1"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(EndpointError, match="must look like"):
        Endpoint(url, "peer")


def test_a_key_is_not_sent_in_the_clear_to_other_machines() -> None:
    with pytest.raises(EndpointError, match="https"):
        Endpoint("http://192.0.2.1/v1", "peer", KEY)
    assert Endpoint("http://192.0.2.1/v1", "peer").host == "192.0.2.1"
    assert Endpoint("https://192.0.2.1/v1", "peer", KEY).key == KEY
    assert Endpoint("http://[::1]:8000/v1", "peer", KEY).is_local


def test_key_files(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert read_key(file) == KEY
    for bad in ("", "two\nlines", "caf\u00e9", "with space"):
        file.write_text(bad, "utf-8")
        with pytest.raises(EndpointError, match="in one line") as error:
            read_key(file)
        assert not bad or bad not in str(error.value)
    with pytest.raises(EndpointError, match="cannot be read"):
        read_key(tmp_path / "none")
