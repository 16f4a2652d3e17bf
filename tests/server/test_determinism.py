"""The same request gives the same answer, and nobody's cache tells of another's prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.shipped import shipped_engine

# Answered differently from seed to seed: the reasoner alone is sure of what it says.
FREE = {
    "messages": [{"role": "user", "content": "Why?"}],
    "temperature": 2,
    "max_tokens": 60,
    "structured_outputs": {"regex": "[a-z]{16}"},
}


@pytest.fixture(scope="module")
def live(start) -> Iterator[Any]:
    with start(shipped_engine()) as running:
        yield running


def answers(reply) -> list[tuple[str, str]]:
    messages = [choice["message"] for choice in reply.json()["choices"]]
    return [(message["reasoning_content"], message["content"]) for message in messages]


def test_each_choice_is_the_answer_to_its_own_seed(live):
    together = answers(live.chat(n=3, seed=11, **FREE))
    alone = [answers(live.chat(seed=11 + place, **FREE))[0] for place in range(3)]
    assert together == alone
    assert len(set(together)) == 3


def test_the_greatest_seed_is_followed_by_the_smallest(live):
    together = answers(live.chat(n=2, seed=2**63 - 1, **FREE))
    assert together[1:] == answers(live.chat(seed=0, **FREE))


def test_completions_of_several_prompts_do_not_depend_on_each_other(live):
    def complete(prompt: Any, **fields: Any) -> list[str]:
        body = {"prompt": prompt, "max_tokens": 12, "temperature": 1.5, "seed": 5, **fields}
        reply = live.client.post("/v1/completions", json=body)
        return [choice["text"] for choice in reply.json()["choices"]]

    prompts = ["What is", "Sort", "1+1="]
    assert complete(prompts) == [complete(prompt)[0] for prompt in prompts]
    assert len(set(complete(prompts[0], n=3))) == 3


def test_identical_requests_are_answered_alike(live):
    fields = {"seed": 4, "logprobs": True, "top_logprobs": 3, **FREE}
    first, second = (live.chat(**fields).json()["choices"] for _ in range(2))
    assert first == second
    assert answers(live.chat(seed=5, **FREE)) != answers(live.chat(seed=4, **FREE))
    greedy = [answers(live.chat(**{**FREE, "temperature": 0})) for _ in range(2)]
    assert greedy[0] == greedy[1]


def cached(live, content: str, **fields: Any) -> int:
    messages = [{"role": "user", "content": content}]
    reply = live.chat(messages=messages, max_tokens=1, **fields).json()
    usage = reply["usage"]
    assert usage["prompt_cache_hit_tokens"] == usage["prompt_tokens_details"]["cached_tokens"]
    return usage["prompt_cache_hit_tokens"]


@pytest.mark.parametrize("field", ["user", "user_id", "cache_salt"])
def test_a_user_shares_no_cached_prefix_with_another(live, field):
    text = f"{field}: " + "sort 7 3 9 1 5 and 8 2 6 4; " * 12
    assert cached(live, text) == 0
    assert cached(live, text) >= 64
    for name in ("a", "b"):
        assert cached(live, text, **{field: name}) == 0
        assert cached(live, text, **{field: name}) >= 64


def test_fields_of_the_owner_are_not_mixed_up(live):
    text = "which of them? " + "sort 7 3 9 1 5 and 8 2 6 4; " * 12
    assert cached(live, text, user="a", user_id="b") == 0
    assert cached(live, text, user="b", user_id="a") == 0
    assert cached(live, text, user="ab") == 0
    assert cached(live, text, user="a", user_id="b") >= 64


def test_anthropics_user_is_a_user(live):
    def ask(user: str) -> dict[str, int]:
        content = "anthropic: " + "sort 7 3 9 1 5 and 8 2 6 4; " * 12
        body = {"max_tokens": 1, "messages": [{"role": "user", "content": content}]}
        body["metadata"] = {"user_id": user}
        return live.client.post("/v1/messages", json=body).json()["usage"]

    first, again, other = ask("a"), ask("a"), ask("b")
    assert first["cache_read_input_tokens"] == other["cache_read_input_tokens"] == 0
    assert again["cache_read_input_tokens"] >= 64
    total = again["input_tokens"] + again["cache_read_input_tokens"]
    assert total == first["input_tokens"]
