"""Hosts, origins and keys."""

from __future__ import annotations

import socket

import pytest

from ingle.server.guard import Access, clean_hosts, host_name, is_loopback
from ingle.server.keys import read_key_file

KEY = "correct-horse-battery"


@pytest.fixture
def keyed(tokenizer, scripted, start, tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# mine\n{KEY}\n\nanother-key-of-mine-1\n")
    file.chmod(0o600)
    with start(scripted(tokenizer), Access(keys=read_key_file(file))) as live:
        yield live


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost:8765", "localhost"),
        ("LOCALHOST", "localhost"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]:80", "::1"),
        ("[::1]", "::1"),
        ("a.example.", "a.example"),
        ("x/?", None),
        ("user@localhost", None),
        ("", None),
        (":80", None),
        ("localhost:", None),
        ("localhost:8x", None),
        ("[evil]:80", None),
        ("[::1]x", None),
        ("a b", None),
    ],
)
def test_host_header_parsing(header, name):
    assert host_name(header) == name


def test_hosts_admitted():
    local = Access("127.0.0.1", clean_hosts(["Box.LAN."]))
    assert local.allows_host("localhost:1") and local.allows_host("box.lan:1")
    assert not local.allows_host("10.0.0.5") and not local.allows_host("evil.example")
    everywhere = Access("0.0.0.0")
    assert everywhere.allows_host("10.0.0.5:80") and not everywhere.allows_host("evil.example")


def test_loopback_addresses():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.0.0.9")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org")))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "x/?", "127.0.0.1@evil"])
def test_foreign_host_is_refused(live, host):
    reply = live.client.get("/health", headers={"Host": host})
    assert reply.status_code == 421
    assert reply.json()["error"]["code"] == "unknown_host"


@pytest.mark.parametrize("hosts", ["", "Host: localhost\r\nHost: evil\r\n"])
def test_missing_and_doubled_host_is_refused(live, hosts):
    port = int(live.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"GET /health HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_other_web_pages_are_refused(live, headers):
    body = {"messages": [{"role": "user", "content": "hi"}]}
    live.engine.seen.clear()
    reply = live.client.post("/v1/chat/completions", json=body, headers=headers)
    assert reply.status_code == 403
    assert not live.engine.seen
    assert live.client.get("/v1/models", headers=headers).status_code == 403
    assert "access-control-allow-origin" not in reply.headers


def test_own_page_is_admitted_and_links_to_it_work(live):
    own = {"Origin": live.url, "Sec-Fetch-Site": "same-origin"}
    assert live.client.get("/v1/models", headers=own).status_code == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert live.client.get("/", headers=link).status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", "/models", "/v1/models/", "//v1/models", "/nope",
                                  "/v1/%2e%2e/health", "/health/", "/static/nope"])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
def test_default_is_deny(keyed, method, path):
    for headers in ({}, {"Authorization": f"Bearer {KEY[:-1]}"}, {"x-api-key": "wrong"}):
        reply = keyed.client.request(method, f"{keyed.url}{path}", headers=headers)
        assert reply.status_code == 401
    assert keyed.client.request(method, f"{keyed.url}{path}?api_key={KEY}").status_code == 401


def test_keys_open_the_door(keyed):
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}):
        assert keyed.client.get("/v1/models", headers=headers).status_code == 200


def test_page_and_bare_health_need_no_key(keyed):
    assert keyed.client.get("/health").json() == {"status": "ok"}
    assert keyed.client.get("/").status_code == 200
    assert keyed.client.get("/static/app.js").status_code == 200


def test_each_key_has_its_own_prefix_cache_salt(keyed):
    for key in (KEY, "another-key-of-mine-1"):
        body = {"messages": [{"role": "user", "content": "hi"}]}
        headers = {"Authorization": f"Bearer {key}"}
        assert keyed.client.post("/chat/completions", json=body, headers=headers).is_success
    first, second = (request.salt for request in keyed.engine.seen)
    assert first and second and first != second


def test_no_key_can_put_itself_before_the_others(keyed, live):
    body = {"messages": [{"role": "user", "content": "hi"}], "priority": -1}
    path, headers = "/v1/chat/completions", {"Authorization": f"Bearer {KEY}"}
    refused = keyed.client.post(path, json=body, headers=headers)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "priority")
    assert keyed.client.post(path, json=body | {"priority": 5}, headers=headers).status_code == 200
    assert live.client.post(path, json=body).status_code == 200  # one client: its own affair
