"""Responses that are kept: continued, referred to, hidden from other keys, bounded."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest

from ingle.server.guard import Access
from ingle.server.keys import ApiKey
from ingle.server.responses_store import Kept, ResponseStore
from tests.server.responding import (
    ANSWER,
    CALL,
    THOUGHT,
    TOOLS,
    UNKNOWN,
    ask,
    prompt_of,
    serve_v41,
    usual,
)

KEYS = ("one-key-of-sixteen", "two-key-of-sixteen")


@pytest.fixture(scope="module")
def served(start, scripted):
    with serve_v41(start, scripted) as running:
        yield running


@pytest.fixture
def v41(served):
    return usual(served)


def test_a_conversation_goes_on_from_a_kept_response(v41):
    first = ask(v41, input="one", instructions="Be brief.")
    second = ask(v41, input="two", previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    third = ask(v41, input="three", previous_response_id=second["id"], instructions="Be kind.")
    answer = f"<｜Assistant｜></think>{ANSWER}<｜end▁of▁sentence｜>"
    chain = f"<｜User｜>one{answer}<｜User｜>two{answer}<｜User｜>three<｜Assistant｜><think>"
    assert prompt_of(v41).endswith(chain)
    assert "Be kind." in prompt_of(v41) and "Be brief." not in prompt_of(v41)
    # what was answered is kept whole, also when the responses before it are gone
    for id_ in (first["id"], second["id"]):
        assert v41.client.delete(f"/v1/responses/{id_}").json()["deleted"] is True
    ask(v41, input="four", previous_response_id=third["id"])
    assert prompt_of(v41).endswith(
        f"{chain}</think>{ANSWER}<｜end▁of▁sentence｜><｜User｜>four<｜Assistant｜><think>".replace(
            "three<｜Assistant｜><think></think>", "three<｜Assistant｜></think>"
        )
    )
    items = v41.client.get(f"/v1/responses/{third['id']}/input_items?order=asc").json()["data"]
    kinds = [(item["type"], item.get("role")) for item in items]
    turn = [("message", "user"), ("reasoning", None), ("message", "assistant")]
    assert kinds == [*turn, *turn, ("message", "user")]


def test_a_call_is_answered_by_naming_the_response(v41):
    v41.engine.content = CALL
    first = ask(v41, tools=TOOLS)
    v41.engine.content = ANSWER
    result = {"type": "function_call_output", "call_id": first["output"][-1]["call_id"]}
    ask(v41, previous_response_id=first["id"], input=[{**result, "output": "42"}], tools=TOOLS)
    assert "<tool_result>42</tool_result>" in prompt_of(v41)
    unanswered = v41.client.post(
        "/v1/responses", json={"input": "so?", "previous_response_id": first["id"]}
    )
    assert unanswered.status_code == 400
    assert unanswered.json()["error"]["message"] == "No tool output found for a tool call."


def test_references_stand_for_kept_items(v41):
    first = ask(v41, input="one")
    asked = v41.client.get(f"/v1/responses/{first['id']}/input_items").json()["data"][0]
    thought, answer = first["output"]
    empty = {"type": "reasoning", "id": thought["id"], "summary": []}
    items = [
        {"type": "item_reference", "id": asked["id"]},
        {**empty, "encrypted_content": thought["encrypted_content"]},
        {"id": answer["id"]},
        {"role": "user", "content": "two"},
    ]
    ask(v41, input=items, tools=TOOLS)
    assert prompt_of(v41).endswith(
        f"<｜User｜>one<｜Assistant｜><think>{THOUGHT}</think>{ANSWER}<｜end▁of▁sentence｜>"
        "<｜User｜>two<｜Assistant｜><think>"
    )


def test_a_request_reads_a_bounded_number_of_responses(v41):
    references = [{"type": "item_reference", "id": f"msg_{ask(v41)['id']}_in0"} for _ in range(17)]
    ask(v41, input=references[:16] * 2)
    reply = v41.client.post("/v1/responses", json={"input": references})
    assert reply.json()["error"]["param"] == "input[16].id"


def test_what_shall_not_be_kept_is_not(v41):
    reply = ask(v41, store=False)
    assert reply["store"] is False
    assert v41.client.get(f"/v1/responses/{reply['id']}").status_code == 404


def test_unknown_responses(v41):
    for method, path in (
        ("GET", f"/v1/responses/{UNKNOWN}"),
        ("GET", "/responses/%00x"),
        ("GET", f"/v1/responses/{UNKNOWN}/input_items"),
        ("POST", f"/v1/responses/{UNKNOWN}/cancel"),
        ("DELETE", f"/v1/responses/{UNKNOWN}"),
    ):
        reply = v41.client.request(method, path)
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "response_not_found"
    reply = v41.client.post("/v1/responses", json={"input": "hi", "previous_response_id": UNKNOWN})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["code"] == "previous_response_not_found"
    assert error["param"] == "previous_response_id"


def test_another_key_finds_nothing(start, scripted):
    keys = tuple(ApiKey(key[:3], sha256(key.encode()).digest()) for key in KEYS)
    script = {"step_seconds": 0.005, "content": "x" * 3000}
    with serve_v41(start, scripted, Access(keys=keys), **script) as live:
        mine, other = ({"Authorization": f"Bearer {key}"} for key in KEYS)
        post = live.client.post
        body = {"input": "secret", "max_output_tokens": 50}
        done = post("/v1/responses", json=body, headers=mine).json()
        body = {"input": "secret", "background": True}
        running = post("/v1/responses", json=body, headers=mine).json()
        for id_ in (done["id"], running["id"]):
            for method, path in (("GET", ""), ("GET", "/input_items"), ("POST", "/cancel")):
                url = f"/v1/responses/{{}}{path}"
                theirs = live.client.request(method, url.format(id_), headers=other)
                nobodys = live.client.request(method, url.format(UNKNOWN), headers=other)
                assert (theirs.status_code, theirs.content) == (404, nobodys.content)
            assert live.client.delete(f"/v1/responses/{id_}", headers=other).status_code == 404
            body = {"input": "x", "previous_response_id": id_}
            assert post("/v1/responses", json=body, headers=other).status_code == 400
            reference = {"type": "item_reference", "id": f"msg_{id_}_in0"}
            body = {"input": [reference, {"role": "user", "content": "x"}]}
            assert post("/v1/responses", json=body, headers=other).status_code == 400
        reference = {"type": "item_reference", "id": f"msg_{done['id']}_in0"}
        body = {"input": [reference], "max_output_tokens": 1}
        assert post("/v1/responses", json=body, headers=mine).status_code == 200
        assert live.client.get(f"/v1/responses/{done['id']}", headers=mine).json() == done
        cancelled = post(f"/v1/responses/{running['id']}/cancel", headers=mine).json()
        assert cancelled["status"] == "cancelled"
        assert live.client.get(f"/v1/responses/{done['id']}").status_code == 401


def kept(size: int) -> Kept:
    return Kept(b"x" * size, b"")


def test_the_store_is_bounded_in_number_and_bytes():
    store = ResponseStore(max_responses=3, max_bytes=100)
    for index in range(5):
        store.put(b"a", f"r{index}", kept(10))
    assert (len(store), store.bytes) == (3, 30)
    assert store.get(b"a", "r1") is None and store.get(b"a", "r2") is not None
    store.put(b"b", "big", kept(85))
    assert (len(store), store.bytes) == (2, 95)  # the oldest went, of whichever key
    assert store.get(b"a", "r4") is not None
    store.put(b"b", "big", kept(20))  # again, smaller
    assert (len(store), store.bytes) == (2, 30)
    store.put(b"b", "too big", kept(101))
    assert (len(store), store.bytes) == (0, 0)
    assert store.delete(b"b", "big") is False


def test_the_store_counts_what_it_holds():
    store = ResponseStore(max_responses=10, max_bytes=200)
    lot = random.Random(1)
    for _ in range(500):
        owner, id_ = lot.choice((b"", b"a")), str(lot.randrange(15))
        if lot.random() < 0.3:
            store.delete(owner, id_)
        else:
            store.put(owner, id_, Kept(b"x" * lot.randrange(60), b"y" * lot.randrange(60)))
        held = [store.get(o, str(i)) for o in (b"", b"a") for i in range(15)]
        assert store.bytes == sum(k.size for k in held if k) <= 200
        assert len(store) == sum(k is not None for k in held) <= 10


def test_a_format_without_tools_answers_too(live):
    first = ask(live, instructions="Be brief.")
    assert [item["type"] for item in first["output"]] == ["reasoning", "message"]
    assert first["output"][1]["content"][0]["text"] == "132 é"
    ask(live, input="next", previous_response_id=first["id"])
    assert prompt_of(live).endswith(
        "<｜User｜>hi<｜Assistant｜>132 é<｜end▁of▁sentence｜>"
        "<｜User｜>next<｜Assistant｜><think>\n"
    )
    refused = live.client.post("/v1/responses", json={"input": "hi", "tools": TOOLS})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tools")
