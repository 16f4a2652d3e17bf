"""The log: a JSON line for each request, and nothing of what it said."""

from __future__ import annotations

import json
import os
from hashlib import sha256

import pytest

from ingle.server.access_log import AccessLog
from ingle.server.guard import Access
from ingle.server.keys import ApiKey

KEY = "correct-horse-battery"
PLANTED = "PLANTED-SECRET"


@pytest.fixture
def logged(tokenizer, scripted, start, tmp_path):
    file = (tmp_path / "log").open("w+b")
    key = ApiKey("alice", sha256(KEY.encode()).digest())
    log = AccessLog(file.fileno())
    with file, start(scripted(tokenizer), Access(keys=(key,)), log=log) as live:
        live.client.headers["Authorization"] = f"Bearer {KEY}"
        yield live, lambda: [json.loads(line) for line in (tmp_path / "log").open()]


def test_a_line_tells_what_a_request_cost(logged, eventually):
    live, lines = logged
    reply = live.chat()
    live.chat(stream=True)
    assert eventually(lambda: len(lines()) == 2)
    usage = reply.json()["usage"]
    for line in lines():
        assert set(line) == {"time", "id", "method", "route", "status", "ms", "ttft_ms",
                             "prompt_tokens", "cached_tokens", "completion_tokens", "key",
                             "finish_reason"}  # fmt: skip
        assert (line["method"], line["route"]) == ("POST", "/v1/chat/completions")
        assert (line["status"], line["key"], line["finish_reason"]) == (200, "alice", "stop")
        assert line["prompt_tokens"] == usage["prompt_tokens"]
        assert (line["cached_tokens"], line["completion_tokens"]) == (3, usage["completion_tokens"])
        assert 0 < line["ttft_ms"] <= line["ms"]
        assert line["time"].endswith("+00:00")
    assert lines()[0]["id"] == reply.headers["x-request-id"]


def test_every_request_has_an_id_of_its_own(logged):
    live, _ = logged
    paths = ("/health", "/nope", "/v1/models", "/static/app.js")
    sent = {"x-request-id": PLANTED}
    ids = [live.client.get(path, headers=sent).headers["x-request-id"] for path in paths * 2]
    assert len(set(ids)) == 8 and PLANTED not in ids


def test_refusals_are_logged_without_what_was_refused(logged, eventually):
    live, lines = logged
    live.client.get(f"/{PLANTED}?q={PLANTED}", headers={"User-Agent": PLANTED})
    live.client.post("/v1/chat/completions", json={PLANTED: PLANTED})
    live.client.get("/v1/models", headers={"Authorization": f"Bearer {PLANTED}"})
    live.client.get("/v1/models", headers={"Host": PLANTED})
    live.client.get(f"/v1/models/{PLANTED}")
    live.chat(messages=[{"role": "user", "content": PLANTED}], user=PLANTED)
    assert eventually(lambda: len(lines()) == 6)
    assert [line["status"] for line in lines()] == [404, 400, 401, 421, 404, 200]
    assert lines()[0]["route"] == "unknown"
    assert lines()[4]["route"] == "/v1/models/{id:path}"
    assert lines()[2]["key"] is None
    text = json.dumps(lines())
    for word in (
        PLANTED,
        KEY,
        "132",
        "127.0.0.1",
        "python-httpx",
        sha256(KEY.encode()).hexdigest(),
    ):
        assert word not in text


def test_a_client_that_left_is_logged_as_cancelled(logged, eventually):
    live, logs = logged
    live.engine.step_seconds = 0.02
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    with live.client.stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = reply.iter_lines()
        next(lines)
        next(lines)
    assert eventually(logs)
    (line,) = logs()
    assert (line["status"], line["finish_reason"]) == (200, "cancelled")
    assert line["prompt_tokens"] > 0


def test_a_reader_that_is_gone_harms_nobody(tokenizer, scripted, start):
    reader, writer = os.pipe()
    os.close(reader)
    with start(scripted(tokenizer), log=AccessLog(writer)) as live:
        assert live.chat().status_code == 200
        assert live.chat(stream=True).text.endswith("data: [DONE]\n\n")
    os.close(writer)


def test_a_reader_that_is_slow_misses_lines_and_is_told(tokenizer, scripted, start):
    reader, writer = os.pipe()
    with start(scripted(tokenizer), log=AccessLog(writer)) as live:
        for _ in range(400):  # far more than the pipe holds
            assert live.client.get("/health").status_code == 200
        held = os.read(reader, 1 << 20)
        live.client.get("/health")
        live.client.get("/health")
    os.close(writer)
    with open(reader, "rb") as rest:
        after = [json.loads(line) for line in rest]
    (missed,) = (line["lines_missed"] for line in after if "lines_missed" in line)
    assert missed > 0
    # the last of the 400 may be logged after its answer has come and the pipe was emptied
    assert len(held.splitlines()) + missed + len(after) == 402
