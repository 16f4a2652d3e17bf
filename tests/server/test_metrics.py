"""The Prometheus page: its format, what is counted, and what is never in it."""

from __future__ import annotations

import re
from hashlib import sha256

import httpx
import pytest

from ingle.engine.request import TokenEvent
from ingle.server.exchange import Exchange
from ingle.server.guard import Access
from ingle.server.keys import ApiKey
from ingle.server.metrics import Histogram, Meter, Metrics, Rate

SAMPLE = re.compile(r'^([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)+)\})? (\S+)$')


def scrape(live, **options) -> dict[str, float]:
    """Sample to value; every line must be a comment or a well-formed sample of a known family."""
    reply = live.client.get("/metrics", **options)
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert reply.text.endswith("\n")
    kinds: dict[str, str] = {}
    found: dict[str, float] = {}
    for line in reply.text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds, "a family must stand in one piece"
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.match(line)
            assert match, line
            family = re.sub(r"_(bucket|sum|count)$", "", match[1])
            assert kinds.get(match[1]) or kinds[family] == "histogram"
            assert line.rpartition(" ")[0] not in found
            found[line.rpartition(" ")[0]] = float(match[3])
    return found


def test_requests_tokens_and_times_are_counted(tokenizer, scripted, start):
    with start(scripted(tokenizer, step_seconds=0.002)) as live:
        usage = live.chat().json()["usage"]
        live.chat(stream=True)
        live.chat(max_tokens=0)
        live.client.get("/nope/secret")
        found = scrape(live)
    chat = 'route="/v1/chat/completions"'
    tokens = usage["completion_tokens"]
    assert found[f'ingle_http_requests_total{{{chat},method="POST",status="200"}}'] == 2
    assert found[f'ingle_http_requests_total{{{chat},method="POST",status="400"}}'] == 1
    assert found['ingle_http_requests_total{route="unknown",method="GET",status="404"}'] == 1
    assert found[f"ingle_request_seconds_count{{{chat}}}"] == 3
    assert found["ingle_time_to_first_token_seconds_count"] == 2
    assert found["ingle_inter_token_seconds_count"] == 2 * (tokens - 1)
    assert found["ingle_inter_token_seconds_sum"] >= 2 * (tokens - 1) * 0.002
    assert found["ingle_queue_seconds_count"] == 2
    assert found["ingle_queue_seconds_sum"] == pytest.approx(0.004)
    assert found['ingle_answers_total{reason="stop"}'] == 2
    assert found["ingle_generated_tokens_total"] == 2 * tokens
    assert found["ingle_prompt_tokens_total"] == 2 * usage["prompt_tokens"]
    assert found["ingle_cached_prompt_tokens_total"] == 6
    assert found["ingle_generated_tokens_per_second"] > 0
    assert found['ingle_cache_pages{state="free"}'] == 5
    assert found['ingle_draft_tokens_total{position="2"}'] == 2
    assert found['ingle_accepted_draft_tokens_total{position="1"}'] == 3
    assert found["ingle_preemptions_total"] == 1
    assert found["ingle_open_streams"] == 0
    assert found["ingle_open_connections"] >= 1


def test_buckets_are_cumulative_and_end_in_the_count(live):
    live.chat()
    found = scrape(live)
    name = "ingle_time_to_first_token_seconds"
    buckets = [value for sample, value in found.items() if sample.startswith(f"{name}_bucket")]
    assert buckets == sorted(buckets) and buckets[-1] == found[f"{name}_count"] > 0


def test_a_client_that_leaves_is_counted_as_such(tokenizer, scripted, start, eventually):
    with start(scripted(tokenizer, step_seconds=0.02)) as live:
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        with live.client.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.iter_lines()  # dropping the iterator would already close the stream
            next(lines)
            assert scrape(live)["ingle_open_streams"] == 1
        assert eventually(lambda: scrape(live).get('ingle_answers_total{reason="cancelled"}') == 1)
        assert scrape(live)["ingle_open_streams"] == 0


def test_a_client_that_leaves_before_its_answer_is_no_server_error(
    tokenizer, scripted, start, eventually
):
    with start(scripted(tokenizer, step_seconds=0.05)) as live:
        with pytest.raises(httpx.ReadTimeout):
            live.client.post(
                "/v1/chat/completions",
                json={"messages": [{"role": "user", "content": "hi"}]},
                timeout=0.2,
            )
        assert eventually(lambda: any('status="499"' in sample for sample in scrape(live)))
        assert not any('status="5' in sample for sample in scrape(live))


def test_failed_answers_are_counted_once(tokenizer, scripted, start):
    with start(scripted(tokenizer, fails=True)) as live:
        live.chat()
        assert scrape(live)['ingle_answers_total{reason="error"}'] == 1


def test_keys_guard_the_page_and_are_not_in_it(tokenizer, scripted, start):
    secret = "correct-horse-battery"
    key = ApiKey("alice", sha256(secret.encode()).digest())
    with start(scripted(tokenizer), Access(keys=(key,))) as live:
        assert live.client.get("/metrics").status_code == 401
        headers = {"Authorization": f"Bearer {secret}"}
        content = "PLANTED-SECRET"
        body = {"messages": [{"role": "user", "content": content}], "user": content}
        live.client.post(f"/chat/completions?q={content}", json=body, headers=headers)
        live.client.get(f"/{content}", headers=headers)
        live.client.get(f"/v1/models/{content}", headers=headers)
        live.client.request(content.replace("-", ""), "/v1/models", headers=headers)
        text = live.client.get("/metrics", headers=headers).text
    assert 'route="/v1/models/{id:path}"' in text
    for word in (content, content.replace("-", ""), secret, "alice", key.digest.hex(), "req_"):
        assert word not in text


def test_series_are_bounded_by_the_table(live):
    for number in range(200):
        live.client.get(f"/never/{number}")
        live.client.get(f"/v1/models/{number}")
    assert len(scrape(live)) < 250


def test_a_value_on_a_bound_belongs_to_it():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert [line.rpartition(" ")[2] for line in histogram.lines("h")] == [
        "2",
        "4",
        "5",
        "14.0",
        "5",
    ]


def test_drafts_share_their_step():
    metrics = Metrics()
    exchange = Exchange("POST")
    meter = Meter(metrics, exchange, 7)
    for tokens, now in ((1, 10.0), (4, 10.3), (5, 10.5)):
        meter.count(TokenEvent("a", (), None, 7, 2, tokens), now)
    meter.count(TokenEvent("a", (), "stop", 7, 2, 5), 10.6)
    assert sum(metrics.between_tokens.counts) == 4
    assert metrics.between_tokens.total == pytest.approx(0.5)
    assert exchange.first_token == 10.0
    assert (exchange.prompt_tokens, exchange.cached_tokens, exchange.completion_tokens) == (7, 2, 5)


def test_the_rate_forgets_what_is_long_ago():
    rate = Rate()
    start = rate._newer[0]
    for beat in range(1, 6):
        rate.sample(100 * beat, start + 10 * beat)
    assert rate(500, start + 50) == pytest.approx(10.0)
    assert rate(500, start + 60) == pytest.approx(5.0)
