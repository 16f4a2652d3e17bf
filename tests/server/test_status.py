"""Health, readiness, and a balance that says the truth."""

from __future__ import annotations

from ingle.server.guard import Access
from ingle.server.keys import ApiKey


def test_health_and_readiness(live):
    for path in ("/health", "/ready"):
        body = live.client.get(path).json()
        assert body == {"status": "ok", "model": "test-model", "open_requests": 0}


def test_a_failed_engine_is_dead_and_not_ready(tokenizer, scripted, start):
    with start(scripted(tokenizer, fails=True)) as live:
        assert live.chat().status_code == 503
        for path in ("/health", "/ready"):
            reply = live.client.get(path)
            assert (reply.status_code, reply.json()["status"]) == (503, "failed")


def test_while_draining_it_lives_but_takes_nothing_new(tokenizer, scripted, start):
    with start(scripted(tokenizer, step_seconds=0.02)) as live:
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        with live.client.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.iter_lines()
            next(lines)
            live.service.drain()
            assert live.client.get("/health").json()["status"] == "stopping"
            assert live.client.get("/health").status_code == 200
            for refused in (live.client.get("/ready"), live.chat(), live.client.get("/v1/models")):
                assert refused.status_code == 503
                assert int(refused.headers["retry-after"]) >= 1
                assert refused.headers["connection"] == "close"
            assert live.chat().json()["error"]["code"] == "unavailable"
            assert "data: [DONE]" in "\n".join(lines)


def test_with_keys_in_force_probes_say_nothing_more(tokenizer, scripted, start):
    key = ApiKey("1", b"x" * 32)
    with start(scripted(tokenizer), Access(keys=(key,))) as live:
        for path in ("/health", "/v1/health", "/ready"):
            assert live.client.get(path).json() == {"status": "ok"}
        assert live.client.get("/user/balance").status_code == 401


def test_balance_has_deepseeks_shape_and_nothing_in_it(live):
    body = live.client.get("/user/balance").json()
    assert body["is_available"] is True
    zero = dict.fromkeys(("total_balance", "granted_balance", "topped_up_balance"), "0.00")
    assert body["balance_infos"] == [{"currency": "CNY", **zero}]
