"""What the `openai` package for Python raises, and what it tries again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest
from scripted import BROKEN, CONTEXT, SLOWLY
from serving import KEY, SCRIPTED, Live

USUAL = [{"role": "user", "content": "Say it"}]
SLOW = [{"role": "user", "content": f"{SLOWLY} {'word ' * 300}"}]  # takes half a minute


def client_of(live: Live, **options: object) -> openai.OpenAI:
    return openai.OpenAI(base_url=live.base, **({"api_key": "none", "max_retries": 0} | options))


def ask(client: openai.OpenAI, **fields: object) -> object:
    return client.chat.completions.create(**({"model": SCRIPTED, "messages": USUAL} | fields))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"temperature": 3.0}, "temperature"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"extra_body": {"no_such_field": 1}}, "no_such_field"),
        ({"max_tokens": CONTEXT}, "max_tokens"),
    ],
)
def test_a_bad_request_names_its_field(scripted: Live, fields: dict, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client_of(scripted), **fields)
    assert (caught.value.status_code, caught.value.param) == (400, param)
    assert caught.value.type == "invalid_request_error"


def test_an_unknown_model_and_an_unknown_route(scripted: Live) -> None:
    client = client_of(scripted)
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, model="gpt-4o")
    assert caught.value.param == "model"
    with pytest.raises(openai.NotFoundError):
        client.moderations.create(input="x")


def test_keys(locked: Live) -> None:
    with pytest.raises(openai.AuthenticationError):
        ask(client_of(locked))
    assert ask(client_of(locked, api_key=KEY)).choices[0].message.content == "Say it"


def test_a_model_that_breaks(scripted: Live) -> None:
    client, broken = client_of(scripted), [{"role": "user", "content": BROKEN}]
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, messages=broken)
    assert caught.value.status_code == 500
    with pytest.raises(openai.APIError) as caught:  # within a stream there is no status left
        list(ask(client, messages=broken, stream=True))
    assert caught.value.type == "server_error"
    assert ask(client).choices[0].message.content == "Say it"  # nobody else is harmed


def test_a_timeout_leaves_nothing_running(scripted: Live) -> None:
    with pytest.raises(openai.APITimeoutError):
        ask(client_of(scripted, timeout=0.2), messages=SLOW)
    assert scripted.idle()


def patient(live: Live, after_failure: Callable[[], object]) -> openai.OpenAI:
    """A client that tries again; after_failure: called with the first reply that is no success."""

    def look(response: Any) -> None:
        if response.is_error:
            after_failure()

    hooks = {"response": [look]}
    return client_of(live, max_retries=3, http_client=openai.DefaultHttpxClient(event_hooks=hooks))


def test_a_full_queue_is_429_and_tried_again(start) -> None:
    with start(max_sequences=1, max_waiting=0) as live:
        first = ask(client_of(live), messages=SLOW, stream=True)
        next(iter(first))
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client_of(live))
        assert caught.value.response.headers["retry-after"] == "1"
        client = patient(live, after_failure=first.close).chat.completions.with_raw_response
        raw = client.create(model=SCRIPTED, messages=USUAL)
        assert raw.retries_taken >= 1
        assert raw.parse().choices[0].message.content == "Say it"


def test_a_server_that_stops_is_503_and_tried_again(start) -> None:
    with start() as live:
        live.service.state = "stopping"  # as from the signal on
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client_of(live))
        assert caught.value.status_code == 503

        def restart() -> None:
            live.service.state = "ok"

        client = patient(live, after_failure=restart).chat.completions.with_raw_response
        assert client.create(model=SCRIPTED, messages=USUAL).retries_taken == 1
