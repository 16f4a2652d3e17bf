"""The door under load and abuse: wrong keys, side doors, crowds; afterwards all is as before."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from ingle.server.guard import Access
from ingle.server.keys import ApiKey

KEY = "correct-horse-battery"
CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "What is 47 + 85?"}]}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.fixture(scope="module")
def keyed(tokenizer, scripted, start):
    key = ApiKey("alice", sha256(KEY.encode()).digest())
    with start(scripted(tokenizer), Access(keys=(key,))) as live:
        yield live


def test_every_wrong_key_gets_the_same_answer(keyed):
    """Row 4: prefixes, lengths, encodings; only the id of the request differs."""
    wrong = ["x", KEY[:-1], KEY + "x", KEY.upper(), KEY[::-1], "x" * 10_000, "sha256:" + "0" * 64,
             sha256(KEY.encode()).hexdigest(), "Basic " + KEY, "Bearer", "é" * 20]  # fmt: skip
    seen = set()
    for text in wrong:
        for headers in (
            {"Authorization": f"Bearer {text}".encode()},
            {"x-api-key": text.encode()},
            {"Authorization": text.encode()},
            {},
        ):
            reply = keyed.client.get("/v1/models", headers=headers)
            kept = {k: v for k, v in reply.headers.items() if k not in ("x-request-id", "date")}
            seen.add((reply.status_code, reply.text, json.dumps(kept)))
    assert len(seen) == 1
    assert seen.pop()[0] == 401


@pytest.mark.slow
def test_ten_thousand_wrong_keys_cost_no_memory(keyed):
    def guess(count: int) -> None:
        for number in range(count):
            headers = {"x-api-key": f"{KEY[: number % 20]}{number}"}
            assert keyed.client.get("/v1/models", headers=headers).status_code == 401

    guess(500)
    before = resident()
    guess(10_000)
    assert resident() - before < 0.05 * before
    assert keyed.client.get("/v1/models", headers={"x-api-key": KEY}).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/openapi.json", "/docs", "/redoc", "/server_info", "/v1/metrics",
     "/user/balance", "/debug", "/v1/v1/health"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "TRACE", "PROPFIND"])
def test_side_doors_are_shut(keyed, method, path):
    assert keyed.client.request(method, path).status_code == 401
    assert keyed.client.request(method, path, params={"api_key": KEY}).status_code == 401
    assert (
        keyed.client.request(method, path, headers={"Cookie": f"x-api-key={KEY}"}).status_code
        == 401
    )


@pytest.mark.parametrize(
    "path",
    ["/load", "/unload", "/v1/load_lora_adapter", "/update_weights", "/start_profile",
     "/reset_prefix_cache", "/sleep", "/shutdown", "/api/pull", "/api/delete",
     "/collective_rpc", "/files"],
)  # fmt: skip
def test_admin_verbs_are_absent(live, path):
    """Row 5: nothing that changes the server is on the HTTP port."""
    for each in (path, f"/v1{path}"):
        assert live.client.post(each, json={}).status_code == 404


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE"])
def test_other_methods_do_nothing(live, method):
    live.engine.seen.clear()
    reply = live.client.request(method, CHAT, json=BODY)
    assert reply.status_code == 405 and not live.engine.seen
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.slow
def test_a_thousand_at_once_are_answered_or_told_to_wait(tokenizer, scripted, start, eventually):
    """Row 33: a full queue is 429 with Retry-After; nobody hangs, nothing is left."""
    engine = scripted(tokenizer, max_open=40, step_seconds=0.002)
    with start(engine) as live:
        gate = threading.Barrier(100)

        def several(_: int) -> list[httpx.Response]:
            with httpx.Client(base_url=live.url, timeout=60, trust_env=False) as client:
                gate.wait()
                return [client.post(CHAT, json=BODY) for _ in range(10)]

        with ThreadPoolExecutor(100) as pool:
            replies = [reply for group in pool.map(several, range(100)) for reply in group]
        statuses = Counter(reply.status_code for reply in replies)
        assert set(statuses) == {200, 429} and statuses[200] >= 40
        assert all("retry-after" in r.headers for r in replies if r.status_code == 429)
        assert eventually(lambda: not engine.open and live.service.open_requests == 0)
        assert live.chat().json()["choices"][0]["message"]["content"] == "132 é"


def test_prompts_at_the_edge_of_the_context(live):
    """Row 34: the context less one token of answer; one more is refused with the counts."""

    def length(text: str) -> int:
        messages = [{"role": "user", "content": text}]
        return live.client.post("/tokenize", json={"messages": messages}).json()["count"]

    room = live.engine.context - 1 - length("")
    text = "z" * (room - (length("z" * room) - length("") - room))
    while length(text) < live.engine.context - 1:
        text += "z"
    fits = [{"role": "user", "content": text}]
    assert live.chat(messages=fits, max_tokens=1).status_code == 200
    reply = live.chat(messages=[{"role": "user", "content": text + "z"}])
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "context_length_exceeded"
    assert "512" in reply.json()["error"]["message"]
    for blank in ("", " ", "\n\t"):
        assert live.chat(messages=[{"role": "user", "content": blank}]).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=" + ",".join(f"{i}-" for i in range(5000))},
        {"If-None-Match": '"' + "x" * 50_000},
        {"If-Modified-Since": "not a date"},
        {"If-Range": "junk", "Range": "bytes=99999999999-"},
        {"Accept-Encoding": "gzip;q=nan, *;q=-1"},
    ],
    ids=["ranges", "etag", "date", "if-range", "encoding"],
)
def test_conditions_that_make_no_sense_get_the_whole_file(live, headers):
    """Row 31: static files have no ranges and one exact condition."""
    whole = live.client.get("/static/app.js").content
    reply = live.client.get("/static/app.js", headers=headers)
    assert (reply.status_code, reply.content) == (200, whole)
