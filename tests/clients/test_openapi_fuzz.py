"""Requests made from /openapi.json by schemathesis: whatever they hold, the server never breaks.

At least 2,000 cases over all endpoints, valid and broken, against the shipped reasoner: no 5xx, the
one error shape, and afterwards the same known answer. INGLE_FUZZ_CASES asks for more.
"""

from __future__ import annotations

import os
from collections import Counter

import httpx
import pytest

schemathesis = pytest.importorskip("schemathesis")
from hypothesis import HealthCheck, given, seed, settings  # noqa: E402

pytestmark = pytest.mark.nightly

CASES = int(os.environ.get("INGLE_FUZZ_CASES", "2000"))
MAX_TOKENS = 2  # a case is a look at the edge, not at the model


def known_answer(live) -> str:
    body = {"messages": [{"role": "user", "content": "47+85="}], "temperature": 0}
    reply = httpx.post(f"{live.url}/v1/chat/completions", json=body, timeout=60, trust_env=False)
    return reply.json()["choices"][0]["message"]["content"]


def shortened(body):
    """The body for this server's model, its longest wishes cut where they are numbers."""
    if not isinstance(body, dict):
        return body
    capped = {name: value for name, value in body.items() if name != "model"}
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if type(capped.get(name)) is int and capped[name] > MAX_TOKENS:
            capped[name] = MAX_TOKENS
    return capped


def run_cases(operation, count: int, send) -> None:
    """Send this many requests of one operation, the same ones each time."""

    @seed(1)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def run(case):
        send(case)

    run()


def test_no_request_breaks_the_server(reasoner):
    document = httpx.get(f"{reasoner.url}/openapi.json", trust_env=False).json()
    schema = schemathesis.openapi.from_dict(document)
    operations = [result.ok() for result in schema.get_all_operations()]
    with_body = [operation for operation in operations if operation.body]
    before = known_answer(reasoner)
    statuses: Counter[int] = Counter()
    broken: list[str] = []
    with httpx.Client(base_url=reasoner.url, timeout=60, trust_env=False) as client:

        def send(case) -> None:
            sent = case.as_transport_kwargs(base_url=reasoner.url)
            fields = {k: sent[k] for k in ("headers", "params", "data") if sent.get(k)}
            if "json" in sent:
                fields["json"] = shortened(sent["json"])
            reply = client.request(sent["method"], sent["url"], **fields)
            statuses[reply.status_code] += 1
            if reply.status_code >= 500:
                broken.append(f"{sent['method']} {sent['url']}: {reply.status_code}")
            elif reply.status_code >= 400:
                assert set(reply.json()["error"]) >= {"message", "type", "param", "code"}

        for operation in operations:
            run_cases(operation, CASES // len(with_body) + 1 if operation.body else 20, send)
    assert not broken, broken[:5]
    assert sum(statuses.values()) >= CASES * 0.9, statuses
    assert min(statuses[200], statuses[400]) > CASES // 20, statuses
    assert reasoner.idle()
    assert known_answer(reasoner) == before
    print(dict(statuses))
