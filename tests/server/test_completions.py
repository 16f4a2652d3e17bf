"""Text completions over HTTP: echo, scores, candidates, several prompts, the middle of a text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from ingle.prompt.fim import FIM_BEGIN, FIM_END
from tests.prompt.vocabulary import SPECIALS, byte_tokenizer
from tests.server.shipped import shipped_engine

PROMPT = "47+85: é"


@pytest.fixture(scope="module")
def live(start) -> Iterator[Any]:
    with start(shipped_engine()) as running:
        yield running


def post(live, **fields: Any):
    body = {"prompt": PROMPT, "seed": 3, "max_tokens": 8, **fields}
    return live.client.post("/v1/completions", json=body)


def complete(live, **fields: Any) -> dict[str, Any]:
    reply = post(live, **fields)
    assert reply.status_code == 200, reply.text
    return reply.json()


def choice(live, **fields: Any) -> dict[str, Any]:
    (only,) = complete(live, **fields)["choices"]
    return only


def chunks(live, **fields: Any) -> list[dict[str, Any]]:
    text = post(live, stream=True, **fields).text
    assert text.endswith("data: [DONE]\n\n")
    return [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]


def assembled(pieces: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The choices that a stream adds up to."""
    whole: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        (part,) = piece["choices"]
        made = whole.setdefault(part["index"], {"index": part["index"], "text": ""})
        made["text"] += part["text"]
        made["finish_reason"] = part["finish_reason"]
        if part["logprobs"] is not None:
            lists = made.setdefault("logprobs", {name: [] for name in part["logprobs"]})
            for name, values in part["logprobs"].items():
                lists[name] += values
        made.setdefault("logprobs", None)
    return whole


def test_shape_and_usage(live):
    reply = complete(live)
    (only,) = reply["choices"]
    assert reply["object"] == "text_completion" and reply["id"].startswith("cmpl-")
    assert only.keys() == {"index", "text", "logprobs", "finish_reason"}
    assert (only["finish_reason"], only["logprobs"]) == ("length", None)
    usage = reply["usage"]
    tokenizer = live.engine.tokenizer
    assert usage["prompt_tokens"] == 1 + len(tokenizer.encode(PROMPT))
    assert usage["completion_tokens"] == 8


def test_the_openai_package_reads_both(live):
    client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)
    fields = {"model": "ingle", "prompt": PROMPT, "max_tokens": 6, "seed": 1, "logprobs": 2}
    whole = client.completions.create(**fields)
    parts = list(client.completions.create(stream=True, **fields))
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    assert len(whole.choices[0].logprobs.tokens) == 6


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"echo": True},
        {"logprobs": 2},
        {"echo": True, "logprobs": 3},
        {"echo": True, "logprobs": 0, "max_tokens": 0},
        {"echo": True, "max_tokens": 0},
        {"n": 3, "temperature": 2},
        {"prompt": ["1+1=", "é"], "n": 2, "echo": True, "logprobs": 1},
        {"prompt": [[5, 6], [7]], "echo": True, "logprobs": 2},
        {"stop": ["1", "0"], "max_tokens": 40, "logprobs": 1},
    ],
    ids=str,
)
def test_a_stream_adds_up_to_the_whole(live, fields):
    whole = complete(live, **fields)
    parts = chunks(live, **fields)
    assert [*assembled(parts).values()] == whole["choices"]
    assert [("usage" in part) for part in parts] == [False] * (len(parts) - 1) + [True]
    mine, other = parts[-1]["usage"], whole["usage"]
    assert mine["completion_tokens"] == other["completion_tokens"]
    assert mine["prompt_tokens"] == other["prompt_tokens"]


def test_null_usage_on_demand(live):
    parts = chunks(live, stream_options={"include_usage": True})
    assert [part["usage"] is None for part in parts] == [True] * (len(parts) - 1) + [False]


def test_echo_scores_the_prompt(live):
    scored = choice(live, echo=True, logprobs=3)
    plain = choice(live)
    assert scored["text"] == PROMPT + plain["text"]
    logprobs = scored["logprobs"]
    tokenizer = live.engine.tokenizer
    ids = tokenizer.encode(PROMPT)
    count = len(ids) + 8
    assert {name: len(values) for name, values in logprobs.items()} == dict.fromkeys(
        ("tokens", "token_logprobs", "top_logprobs", "text_offset"), count
    )
    assert logprobs["tokens"][:6] == list(PROMPT[:6])
    assert logprobs["tokens"][len(ids) - 2 : len(ids)] == ["\\xc3", "\\xa9"]  # bytes, not text
    assert all(value <= 0 for value in logprobs["token_logprobs"])
    for token, value, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert 3 <= len(top) <= 4 and top[token] == value  # the chosen one is always among them
        assert max(top.values()) >= value
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        if "\\x" not in token:
            assert scored["text"][offset : offset + len(token)] == token
    assert choice(live, logprobs=3)["logprobs"]["tokens"] == logprobs["tokens"][len(ids) :]


def test_a_prompts_score_is_that_of_writing_it(live):
    """What the model wrote gets the same log-probabilities when it is read."""
    written = choice(live, prompt="47+85:", temperature=0, logprobs=0, max_tokens=10)
    tokenizer = live.engine.tokenizer
    ids = tokenizer.encode("47+85:" + written["text"])
    read = choice(live, prompt=[tokenizer.bos_id, *ids], echo=True, logprobs=0, max_tokens=0)[
        "logprobs"
    ]
    assert read["token_logprobs"][0] is None and read["top_logprobs"][0] is None
    assert read["token_logprobs"][-10:] == pytest.approx(
        written["logprobs"]["token_logprobs"], abs=1e-3
    )


def test_ids_are_a_prompt_as_they_are(live):
    tokenizer = live.engine.tokenizer
    ids = [tokenizer.bos_id, *tokenizer.encode(PROMPT)]
    by_ids, by_text = choice(live, prompt=ids), choice(live)
    assert by_ids == by_text
    echoed = choice(live, prompt=ids, echo=True)["text"]
    assert echoed == "<｜begin▁of▁sentence｜>" + PROMPT + by_text["text"]


def test_nothing_but_the_prompt(live):
    only = choice(live, echo=True, max_tokens=0)
    assert (only["text"], only["logprobs"], only["finish_reason"]) == (PROMPT, None, "length")
    scored = choice(live, echo=True, max_tokens=0, logprobs=1)
    assert scored["text"] == PROMPT
    assert len(scored["logprobs"]["tokens"]) == len(live.engine.tokenizer.encode(PROMPT))


def test_the_likeliest_of_several(live):
    fields = {"temperature": 2, "logprobs": 0, "max_tokens": 6}
    all_ = complete(live, n=4, **fields)["choices"]

    def mean(one: dict[str, Any]) -> float:
        values = one["logprobs"]["token_logprobs"]
        return sum(values) / len(values)

    ranked = sorted(all_, key=mean, reverse=True)
    assert len({one["text"] for one in all_}) > 1
    best = complete(live, n=2, best_of=4, **fields)
    assert [one["text"] for one in best["choices"]] == [one["text"] for one in ranked[:2]]
    assert [one["index"] for one in best["choices"]] == [0, 1]
    # tokens of all candidates are paid for
    assert best["usage"]["completion_tokens"] >= sum(len(one["logprobs"]["tokens"]) for one in all_)
    del fields["logprobs"]
    (first,) = complete(live, best_of=4, **fields)["choices"]
    assert (first["text"], first["logprobs"]) == (ranked[0]["text"], None)


def test_several_prompts_are_numbered_through(live):
    reply = complete(live, prompt=["a", "b"], n=2, echo=True)
    texts = [one["text"] for one in reply["choices"]]
    assert [one["index"] for one in reply["choices"]] == [0, 1, 2, 3]
    assert [text[0] for text in texts] == ["a", "a", "b", "b"]
    assert reply["usage"]["prompt_tokens"] == 4  # each prompt once, with its beginning


def test_stop_strings_are_not_part_of_the_text(live):
    free = choice(live, max_tokens=40)["text"]
    stop = free[3:5]
    stopped = choice(live, max_tokens=40, stop=[stop])
    assert stopped["text"] == free[: free.index(stop)]
    assert stopped["finish_reason"] == "stop"


def test_special_tokens_in_a_prompt_stay_text(live):
    spelled = "</think><｜Assistant｜>"
    reply = complete(live, prompt=spelled, max_tokens=1)
    assert reply["usage"]["prompt_tokens"] == 1 + len(live.engine.tokenizer.encode(spelled))


BAD = [
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": ["a", 5]}, "prompt"),
    ({"prompt": [5, "a"]}, "prompt"),
    ({"prompt": [512]}, "prompt"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": [[5], [10**9]]}, "prompt"),
    ({"prompt": ["a"] * 65}, "prompt"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1, "echo": True}, "max_tokens"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"n": 9}, "n"),
    ({"n": 3, "best_of": 2}, "best_of"),
    ({"best_of": 9}, "best_of"),
    ({"best_of": 2, "stream": True}, "best_of"),
    ({"suffix": "x"}, "suffix"),  # this vocabulary has no tokens for it
    ({"suffix": "x", "echo": True}, "echo"),
    ({"suffix": "x", "prompt": [5]}, "suffix"),
    ({"messages": []}, "messages"),
    ({"stop": [""]}, "stop"),
    ({"temperature": 3}, "temperature"),
    ({"max_tokens": 2000}, "max_tokens"),
]


@pytest.mark.parametrize(("fields", "param"), BAD, ids=lambda value: str(value)[:50])
def test_a_bad_field_is_refused_by_name(live, fields, param):
    reply = post(live, **fields)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param
    assert live.service.open_requests == 0


def test_the_middle_of_a_text(scripted, start):
    tokenizer = byte_tokenizer((*SPECIALS, FIM_BEGIN, FIM_END))
    with start(scripted(tokenizer, context=4096, reasoning=None, content="b - a")) as live:
        for path in ("/v1/completions", "/completions", "/beta/completions"):
            body = {"prompt": f"def f(a, b):{FIM_END}", "suffix": "\n", "max_tokens": 99}
            reply = live.client.post(path, json=body).json()["choices"][0]
            assert (reply["text"], reply["finish_reason"]) == ("b - a", "stop")
        prompt = live.engine.seen[-1].prompt
        assert tokenizer.decode(prompt, skip_special=False) == (
            f"<｜begin▁of▁sentence｜>{FIM_BEGIN}def f(a, b):{FIM_END}<｜fim▁hole｜>\n{FIM_END}"
        )
        assert sum(map(tokenizer.is_special, prompt)) == 4  # the one in the prompt is text
        body = {"prompt": "a", "suffix": "b", "stream": True, "max_tokens": 99}
        assert '"text":"b"' in live.client.post("/v1/completions", json=body).text
