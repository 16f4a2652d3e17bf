"""Rate limits: the arithmetic on a clock of its own, then what a client sees."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ingle.server.errors import HTTPError
from ingle.server.guard import Access
from ingle.server.keys import ApiKey
from ingle.server.limits import Account, Bucket, Limits, spell_seconds

CHAT = "/v1/chat/completions"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_bucket_fills_steadily_and_never_over(clock):
    bucket = Bucket(60, clock)
    bucket.take(60)
    assert bucket.level == 0 and bucket.wait(1) == pytest.approx(1.0)
    clock.now += 1.0
    assert bucket.wait(1) == 0
    clock.now += 1e6
    assert bucket.level == 60
    bucket.take(-5)
    assert bucket.level == 60


@pytest.mark.parametrize("limit", [1, 3, 7, 60, 6001])
def test_whoever_waits_as_told_is_let_in(limit, clock):
    account = Account(Limits(requests=limit), clock=clock)
    for _ in range(limit):
        account.enter()
    for _ in range(50):
        with pytest.raises(HTTPError) as refusal:
            account.enter()
        clock.now += int(refusal.value.headers["Retry-After"]) - 0.001
        if limit == 1:
            with pytest.raises(HTTPError):
                account.enter()
        clock.now += 0.001
        account.enter()
        while account._requests.level >= 1:
            account.enter()


def test_answers_go_on_credit_and_the_debt_is_paid_first(clock):
    account = Account(Limits(tokens=600), clock=clock)
    account.enter()
    account.take_prompt(100)
    account.take_tokens(800)  # 300 in debt
    with pytest.raises(HTTPError) as refusal:
        account.enter()
    assert refusal.value.status == 429 and refusal.value.headers["Retry-After"] == "31"
    clock.now += 31
    account.enter()
    with pytest.raises(HTTPError):
        account.take_prompt(100)


def test_a_prompt_longer_than_the_bucket_passes_when_it_is_full(clock):
    account = Account(Limits(tokens=60), clock=clock)
    account.take_prompt(500)
    clock.now += 400
    with pytest.raises(HTTPError) as refusal:
        account.take_prompt(500)
    clock.now += int(refusal.value.headers["Retry-After"])
    account.take_prompt(500)


def test_places_come_back(clock):
    account = Account(Limits(concurrency=2), clock=clock)
    account.enter()
    account.enter()
    with pytest.raises(HTTPError):
        account.enter()
    account.leave(refund=False)
    account.enter()


def test_what_was_turned_away_is_given_back(clock):
    account = Account(Limits(requests=1), clock=clock)
    for _ in range(5):
        account.enter()
        account.leave(refund=True)
    account.enter()
    account.leave(refund=False)
    with pytest.raises(HTTPError):
        account.enter()


@pytest.mark.parametrize(
    ("seconds", "spelled"),
    [(0, "0s"), (0.0121, "13ms"), (0.12, "120ms"), (1.0, "1s"), (8.64, "8.64s"), (60, "1m0s"),
     (359.9999, "6m0s"), (3601.5, "60m1.5s")],
)  # fmt: skip
def test_durations_as_openai_writes_them(seconds, spelled):
    assert spell_seconds(seconds) == spelled


# --- what a client sees ---


@pytest.fixture
def limited(tokenizer, scripted, start):
    def run(limits: Limits, **options):
        return start(scripted(tokenizer, **options), Access(limits=limits))

    return run


def test_one_request_too_many(limited):
    with limited(Limits(requests=2)) as live:
        first, second, third = live.chat(), live.chat(stream=True), live.chat()
    assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"].endswith("s")
    assert "x-ratelimit-limit-tokens" not in first.headers
    assert 1 <= int(third.headers["retry-after"]) <= 30
    error = third.json()["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")


def test_tokens_are_charged_from_the_usage(limited):
    limit, started = 600, time.monotonic()
    with limited(Limits(tokens=limit)) as live:
        usage = live.chat().json()["usage"]
        for answered in (1, 2):
            reply = live.chat(stream=True)
            # at its head only its own prompt has been taken, of those before it all
            left = limit - answered * usage["total_tokens"] - usage["prompt_tokens"]
            flowed_back = (time.monotonic() - started) * limit / 60
            shown = int(reply.headers["x-ratelimit-remaining-tokens"])
            assert left - 1 <= shown <= min(limit, left + flowed_back)
            assert reply.headers["x-ratelimit-limit-tokens"] == str(limit)


def test_a_prompt_that_does_not_fit_is_refused_before_the_engine(limited):
    with limited(Limits(tokens=90)) as live:
        assert live.chat(max_tokens=1).status_code == 200
        body = {"messages": [{"role": "user", "content": "z" * 80}]}
        seen = len(live.engine.seen)
        reply = live.client.post(CHAT, json=body)
        assert reply.status_code == 429
        assert int(reply.headers["retry-after"]) >= 1
        assert len(live.engine.seen) == seen
        assert "x-ratelimit-reset-tokens" in reply.headers


def test_places_at_a_time(limited, eventually):
    with limited(Limits(concurrency=2), step_seconds=0.02) as live:
        gate = threading.Barrier(6)

        def one(_: int) -> int:
            gate.wait()
            body = {"messages": [{"role": "user", "content": "hi"}]}
            return httpx.post(live.url + CHAT, json=body, timeout=60, trust_env=False).status_code

        with ThreadPoolExecutor(6) as pool:
            statuses = sorted(pool.map(one, range(6)))
        assert statuses == [200, 200, 429, 429, 429, 429]
        live.engine.step_seconds = 0
        assert live.chat().status_code == 200
        # a client that leaves gives its place back, too
        live.engine.step_seconds = 0.05
        for _ in range(2):
            body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
            with live.client.stream("POST", CHAT, json=body) as reply:
                next(reply.iter_lines())
        assert eventually(lambda: not live.engine.open)
        live.engine.step_seconds = 0
        assert eventually(lambda: live.chat().status_code == 200)


def test_an_answer_in_the_background_keeps_its_place(limited, eventually):
    with limited(Limits(concurrency=1), step_seconds=0.03) as live:
        body = {"input": "hi", "background": True}
        assert live.client.post("/v1/responses", json=body).status_code == 200
        assert live.chat().status_code == 429
        assert eventually(lambda: not live.engine.open)
        assert eventually(lambda: live.chat(max_tokens=1).status_code == 200)


def test_requests_that_were_wrong_cost_a_request_but_no_tokens(limited):
    with limited(Limits(requests=3, tokens=1000)) as live:
        bad = live.client.post(CHAT, json={"messages": []})
        assert bad.status_code == 400
        assert bad.headers["x-ratelimit-remaining-requests"] == "2"
        assert bad.headers["x-ratelimit-remaining-tokens"] == "1000"


def test_what_the_server_could_not_do_costs_nothing(limited):
    with limited(Limits(requests=3, tokens=1000), max_open=0) as live:
        for _ in range(5):
            assert live.chat().json()["error"]["code"] == "queue_full"
        live.engine.max_open = 10
        reply = live.chat()
        assert reply.headers["x-ratelimit-remaining-requests"] == "2"


def test_an_answer_that_failed_gives_its_tokens_back(limited):
    with limited(Limits(tokens=1000), rejects=True) as live:
        for _ in range(3):
            assert live.chat().status_code == 500
            assert "generation_failed" in live.chat(stream=True).text
        live.engine.rejects = False
        reply = live.chat(max_tokens=1)
        used = reply.json()["usage"]["total_tokens"]
        assert int(reply.headers["x-ratelimit-remaining-tokens"]) >= 1000 - used - 1


def test_each_key_has_its_own_account_and_free_ones_have_none(tokenizer, scripted, start):
    from hashlib import sha256

    def key(name: str, limits: Limits) -> ApiKey:
        return ApiKey(name, sha256(name.encode()).digest(), limits)

    keys = (key("a", Limits(requests=1)), key("b", Limits(requests=1)), key("free", Limits()))
    with start(scripted(tokenizer), Access(keys=keys)) as live:

        def ask(name: str) -> httpx.Response:
            body = {"messages": [{"role": "user", "content": "hi"}]}
            return live.client.post(CHAT, json=body, headers={"x-api-key": name})

        assert [ask(name).status_code for name in "aabb"] == [200, 429, 200, 429]
        replies = [ask("free") for _ in range(4)]
        assert {reply.status_code for reply in replies} == {200}
        assert not any(name.startswith("x-ratelimit") for name in replies[0].headers)
        # looking is free
        headers = {"x-api-key": "a"}
        assert live.client.get("/v1/models", headers=headers).status_code == 200
