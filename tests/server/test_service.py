"""Load, leaving clients, full queues, failing engines, shutting down."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest

from ingle.engine.request import FinishReason, Request, SamplingParams, TokenEvent, TokenOut
from ingle.server.errors import EngineFailedError, GenerationFailedError
from ingle.server.exchange import CURRENT, Exchange
from ingle.server.service import EngineService, ServedModel
from ingle.server.stream import TokenStream

BODY = {"messages": [{"role": "user", "content": "What is 47 + 85?"}]}


def test_hundreds_of_requests_at_once(live):
    gate = threading.Barrier(220)
    limits = httpx.Limits(max_connections=None)

    def one(number: int) -> str:
        gate.wait()
        stream = number % 2 == 0
        reply = client.post("/v1/chat/completions", json={**BODY, "stream": stream})
        assert reply.status_code == 200
        if stream:
            assert reply.text.endswith("data: [DONE]\n\n")
            return "132 é"
        return reply.json()["choices"][0]["message"]["content"]

    with (
        httpx.Client(base_url=live.url, limits=limits, timeout=60, trust_env=False) as client,
        ThreadPoolExecutor(220) as pool,
    ):
        assert set(pool.map(one, range(220))) == {"132 é"}
    assert live.service.open_requests == 0
    assert live.engine.open == {}


def test_client_that_leaves_a_stream_is_cancelled(tokenizer, scripted, start, eventually):
    engine = scripted(tokenizer, step_seconds=0.05)
    with start(engine) as live:
        with live.client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as r:
            lines = r.iter_lines()  # dropping the iterator would already close the stream
            next(lines)
            assert len(engine.open) == 1
        assert eventually(lambda: engine.cancelled and not engine.open)
        assert live.service.open_requests == 0
        engine.step_seconds = 0
        assert live.chat().json()["choices"][0]["message"]["content"] == "132 é"


def test_client_that_leaves_a_whole_reply_is_cancelled(tokenizer, scripted, start, eventually):
    engine = scripted(tokenizer, step_seconds=0.05)
    with start(engine) as live:
        with suppress(httpx.ReadTimeout):
            live.client.post("/v1/chat/completions", json=BODY, timeout=0.2)
        assert eventually(lambda: engine.cancelled and not engine.open)


def test_finished_requests_are_not_cancelled(live):
    live.engine.cancelled.clear()
    live.chat()
    live.chat(stream=True)
    assert live.engine.cancelled == []


def test_full_queue_is_429_with_retry_after(tokenizer, scripted, start):
    engine = scripted(tokenizer, max_open=0)
    with start(engine) as live:
        for stream in (False, True):
            reply = live.chat(stream=stream)
            assert reply.status_code == 429
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.json()["error"]["code"] == "queue_full"
        engine.max_open = 1
        assert live.chat().status_code == 200


def test_failed_engine_is_503_and_says_so_on_health(tokenizer, scripted, start):
    with start(scripted(tokenizer, fails=True)) as live:
        reply = live.chat()
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "engine_failed"
        assert "secret" not in reply.text and "0x" not in reply.text
        assert live.client.get("/health").status_code == 503
        assert live.client.get("/health").json()["status"] == "failed"
        assert live.chat().status_code == 503


def test_engine_that_fails_in_mid_stream_ends_it_with_an_error_event(tokenizer, scripted, start):
    engine = scripted(tokenizer, step_seconds=0.02)
    body = {**BODY, "stream": True}
    with start(engine) as live, live.client.stream("POST", "/chat/completions", json=body) as reply:
        lines = reply.iter_lines()
        next(lines)
        engine.fails = True
        rest = "\n".join(lines)
    assert '"code":"engine_failed"' in rest
    assert "[DONE]" not in rest and "secret" not in rest


def test_silent_engine_sends_keep_alive_comments(tokenizer, scripted, start, monkeypatch):
    monkeypatch.setattr("ingle.server.service.HEARTBEAT_SECONDS", 0.02)
    engine = scripted(tokenizer, step_seconds=0.12)
    with start(engine) as live:
        text = live.chat(stream=True, max_tokens=2).text
    assert text.count(": keep-alive\n\n") >= 2
    assert text.endswith("data: [DONE]\n\n")


def test_shutdown_ends_open_requests(tokenizer, scripted, start):
    engine = scripted(tokenizer, step_seconds=0.5, reasoning="long " * 100)
    outcome = []
    with start(engine) as live:

        def ask() -> None:
            try:
                outcome.append(httpx.post(f"{live.url}/v1/chat/completions", json=BODY, timeout=30,
                                          trust_env=False).status_code)  # fmt: skip
            except httpx.TransportError as error:
                outcome.append(type(error).__name__)

        asking = threading.Thread(target=ask)
        asking.start()
        while not engine.open:
            time.sleep(0.01)
    asking.join(10)
    assert len(outcome) == 1  # it did not hang
    assert not engine.open


def test_no_sleep_between_submit_and_step(live):
    times = []
    for _ in range(20):
        started = time.perf_counter()
        live.chat(max_tokens=1)
        times.append(time.perf_counter() - started)
    assert sorted(times)[10] < 0.5  # a missed wake-up would wait for the next request


def test_request_that_fails_alone_is_500_and_the_server_lives(tokenizer, scripted, start):
    engine = scripted(tokenizer, rejects=True)
    with start(engine) as live:
        reply = live.chat()
        assert reply.status_code == 500
        assert reply.json()["error"]["code"] == "generation_failed"
        assert '"code":"generation_failed"' in live.chat(stream=True).text
        engine.rejects = False
        assert live.chat().status_code == 200


def test_a_reader_of_the_whole_is_woken_once_and_hears_a_failure() -> None:
    def event(number: int, reason: FinishReason | None = None) -> TokenEvent:
        return TokenEvent("a", (TokenOut(number, str(number)),), reason, 1, 0, number)

    async def read(stream: TokenStream, into: list[list[int]]) -> None:
        async for events in stream.events():
            into.append([token.id for event in events for token in event.tokens])

    async def main() -> tuple[list[list[int]], list[list[int]]]:
        heard: tuple[list[list[int]], list[list[int]]] = ([], [])
        whole, each = (TokenStream("a", lambda _: None, kind) for kind in (True, False))
        tasks = [
            asyncio.create_task(read(s, into)) for s, into in zip((whole, each), heard, strict=True)
        ]
        for number in range(3):
            whole.hold(event(number), 0.0)
            each.hold(event(number), 0.0)
            each.deliver()
            whole.beat()
            await asyncio.sleep(0)
        for stream in (whole, each):
            stream.hold(event(3, "stop"), 0.0)
            assert stream.deliver()
        await asyncio.gather(*tasks)
        return heard

    whole, each = asyncio.run(main())
    assert whole == [[0, 1, 2, 3]]
    assert [id_ for ids in each for id_ in ids] == [0, 1, 2, 3] and len(each) > 1

    async def fail(last: TokenEvent | Exception, error: type[Exception]) -> list[list[int]]:
        stream, heard = TokenStream("a", lambda _: None, True), []
        stream.hold(event(1), 0.0)
        stream.hold(event(2), 0.0)
        if isinstance(last, TokenEvent):
            stream.hold(last, 0.0)
            stream.deliver()
        else:
            stream.end(last)
        with pytest.raises(error):
            await read(stream, heard)
        return heard

    for last, error in (
        (EngineFailedError("gone"), EngineFailedError),
        (event(3, "error"), GenerationFailedError),
    ):
        assert asyncio.run(fail(last, error))[0] == [1, 2]  # what was written is not lost


def test_what_was_written_before_the_engine_failed_is_booked(tokenizer, scripted) -> None:
    model = ServedModel("test-model", "fp_test", 1)
    service = EngineService(scripted(tokenizer), tokenizer, model)
    service.state = "ok"
    exchange = Exchange("POST")
    token = CURRENT.set(exchange)
    stream = service.submit(Request("a", [1, 2, 3], SamplingParams()), whole=True)
    CURRENT.reset(token)
    stream.hold(TokenEvent("a", (TokenOut(5, "x"),), None, 3, 0, 2), 1.0)
    service._fail()
    assert (exchange.prompt_tokens, exchange.completion_tokens) == (3, 2)
    assert exchange.finish_reason == "error"


def test_a_client_that_leaves_ends_all_choices(tokenizer, scripted, start, eventually):
    engine = scripted(tokenizer, step_seconds=0.05)
    body = {**BODY, "stream": True, "n": 3}
    with start(engine) as live:
        with live.client.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.iter_lines()
            next(lines)
            assert len(engine.open) == 3
        assert eventually(lambda: not engine.open)
        assert len(set(engine.cancelled)) == 3
        assert live.service.open_requests == 0


def test_choices_that_find_no_room_leave_nothing_behind(tokenizer, scripted, start):
    engine = scripted(tokenizer, max_open=2, step_seconds=0.02)
    with start(engine) as live:
        for path, body in (
            ("/v1/chat/completions", {**BODY, "n": 3}),
            ("/v1/chat/completions", {**BODY, "n": 3, "stream": True}),
            ("/v1/completions", {"prompt": ["a", "b", "c"]}),
        ):
            reply = live.client.post(path, json=body)
            assert reply.status_code == 429, reply.text
            assert engine.open == {} and live.service.open_requests == 0
        assert live.chat(n=2).status_code == 200


def test_one_failing_choice_fails_the_request(tokenizer, scripted, start):
    with start(scripted(tokenizer, rejects=True)) as live:
        assert live.chat(n=3).status_code == 500
        text = live.chat(n=3, stream=True).text
        assert text.count('"code":"generation_failed"') == 1 and "[DONE]" not in text
        assert live.service.open_requests == 0


def test_anthropics_stream_ends_with_an_error_event(tokenizer, scripted, start):
    engine = scripted(tokenizer, step_seconds=0.02)
    body = {**BODY, "max_tokens": 99, "stream": True}
    with start(engine) as live, live.client.stream("POST", "/v1/messages", json=body) as reply:
        lines = reply.iter_lines()
        next(lines)
        engine.fails = True
        rest = "\n".join(lines)
    assert "event: error\n" in rest and '"type":"error"' in rest
    assert "message_stop" not in rest and "secret" not in rest
