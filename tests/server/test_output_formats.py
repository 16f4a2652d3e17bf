"""Structured output over HTTP on the shipped reasoner: what is asked for is what comes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from ingle.prompt.deepseek_r1 import DeepSeekR1
from tests.server.shipped import shipped_engine

SCHEMA = {
    "type": "object",
    "properties": {
        "answer": {"type": "integer", "minimum": 0, "maximum": 999},
        "sure": {"enum": ["yes", "no"]},
        "steps": {"type": "array", "items": {"enum": [1, 2, 3]}, "maxItems": 2},
    },
    "required": ["answer", "sure", "steps"],
    "additionalProperties": False,
}
OFF = {"type": "disabled"}


def schema_format(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **more}}


@pytest.fixture(scope="module")
def live(start) -> Iterator[Any]:
    with start(shipped_engine()) as running:
        yield running


def ask(live, **fields: Any) -> dict[str, Any]:
    reply = live.chat(**{"seed": 1, "max_tokens": 900, **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]


def streamed(live, **fields: Any) -> tuple[str, str]:
    """Thought and answer of a stream."""
    text = live.chat(seed=1, max_tokens=900, stream=True, **fields).text
    deltas = [
        json.loads(line[6:])["choices"][0]["delta"]
        for line in text.split("\n\n")
        if line.startswith("data: {")
    ]
    thought, answer = (
        "".join(delta.get(name) or "" for delta in deltas)
        for name in ("reasoning_content", "content")
    )
    return thought, answer


def check_schema(text: str) -> None:
    value = json.loads(text)
    assert list(value) == ["answer", "sure", "steps"]
    assert isinstance(value["answer"], int) and 0 <= value["answer"] <= 999
    assert value["sure"] in ("yes", "no")
    assert set(value["steps"]) <= {1, 2, 3} and len(value["steps"]) <= 2


FORMATS = {
    "regex": ({"response_format": {"type": "regex", "regex": "[a-c]{2}-[0-9]{3}!"}},
              lambda text: re.fullmatch("[a-c]{2}-[0-9]{3}!", text)),
    "structured regex": ({"structured_outputs": {"regex": "(ja|nein), [0-9]{1,4}"}},
                         lambda text: re.fullmatch("(ja|nein), [0-9]{1,4}", text)),
    "choice": ({"structured_outputs": {"choice": ["red", "green", "blau é"]}},
               lambda text: text in ("red", "green", "blau é")),
    "lark": ({"structured_outputs": {"grammar": 'start: "<" DIGIT DIGIT ">"\nDIGIT: /[0-9]/'}},
             lambda text: re.fullmatch("<[0-9][0-9]>", text)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("thinking", "form"),
    [
        (None, {"response_format": schema_format(SCHEMA)}),
        (OFF, {"response_format": schema_format(SCHEMA, strict=True)}),
        (OFF, {"structured_outputs": {"json": SCHEMA}}),
        (None, {"structured_outputs": {"json": json.dumps(SCHEMA)}}),
    ],
    ids=str,
)
def test_a_schema_is_kept_to(live, thinking, form):
    choice = ask(live, temperature=1, thinking=thinking, **form)
    assert choice["finish_reason"] == "stop"
    check_schema(choice["message"]["content"])


@pytest.mark.parametrize("name", FORMATS)
def test_other_formats_are_kept_to(live, name):
    fields, matches = FORMATS[name]
    for seed in range(3):
        for thinking in (None, OFF):
            choice = ask(live, seed=seed, temperature=1.5, thinking=thinking, **fields)
            assert choice["finish_reason"] == "stop"
            assert matches(choice["message"]["content"]), choice
    whole = ask(live, **fields)["message"]
    assert streamed(live, **fields) == (whole["reasoning_content"], whole["content"])


def test_the_thought_comes_first_and_is_free(live):
    free = ask(live)["message"]
    bound = ask(live, **FORMATS["choice"][0])["message"]
    assert bound["reasoning_content"] == free["reasoning_content"] != ""
    assert bound["content"] != free["content"]


def test_a_json_object_needs_the_word(live):
    reply = live.chat(response_format={"type": "json_object"})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, "response_format")
    assert error["message"].startswith("Prompt must contain the word 'json' in some form")


def test_a_json_object_comes(live):
    question = [{"role": "user", "content": "What is 47 + 85? Answer in JSON."}]
    form = {"messages": question, "response_format": {"type": "json_object"}}
    ended = 0
    for seed in range(8):
        choice = ask(live, seed=seed, thinking=OFF, max_tokens=100, **form)
        content = choice["message"]["content"]
        assert content.startswith("{")
        if choice["finish_reason"] == "stop":  # a model this small may write strings for ever
            assert isinstance(json.loads(content), dict)
            ended += 1
    assert ended > 0


def test_a_strict_schema_is_closed_for_the_answer(live):
    loose = {"type": "object", "properties": {"a": {"enum": [1, 2]}, "b": {"enum": ["x"]}}}
    for seed in range(4):
        choice = ask(
            live, seed=seed, temperature=2, response_format=schema_format(loose, strict=True)
        )
        value = json.loads(choice["message"]["content"])
        assert value["a"] in (1, 2) and value == {"a": value["a"], "b": "x"}


def test_all_choices_keep_to_the_format(live):
    reply = live.chat(n=3, seed=3, temperature=1.5, **FORMATS["regex"][0]).json()
    texts = [choice["message"]["content"] for choice in reply["choices"]]
    assert len(texts) == 3 and all(map(FORMATS["regex"][1], texts))


DEEP: dict[str, Any] = {"type": "string"}
for _ in range(200):
    DEEP = {"type": "object", "properties": {"a": DEEP}}
WHERE = "response_format.json_schema.schema"
INVALID = [
    ({"response_format": schema_format({"type": "PLANTED"})}, WHERE),
    ({"response_format": schema_format({"$ref": "http://PLANTED/x"})}, WHERE),
    ({"response_format": schema_format({"type": "string", "pattern": "(PLANTED"})}, WHERE),
    ({"response_format": schema_format(DEEP)}, WHERE),
    ({"response_format": schema_format(DEEP, strict=True)}, WHERE),
    ({"response_format": schema_format([1])}, WHERE),
    ({"response_format": {"type": "regex", "regex": "(PLANTED"}}, "response_format"),
    ({"response_format": {"type": "regex", "regex": "a" * 10_000}}, "response_format"),
    ({"structured_outputs": {"regex": "[PLANTED"}}, "structured_outputs.regex"),
    ({"structured_outputs": {"regex": "(?=x)x"}}, "structured_outputs.regex"),
    ({"structured_outputs": {"choice": ["a", ""]}}, "structured_outputs.choice"),
    ({"structured_outputs": {"json": "{PLANTED"}}, "structured_outputs.json"),
    ({"structured_outputs": {"json": {"anyOf": []}}}, "structured_outputs.json"),
    ({"structured_outputs": {"grammar": "start: PLANTED"}}, "structured_outputs.grammar"),
    ({"structured_outputs": {"grammar": "PLANTED(("}}, "structured_outputs.grammar"),
    ({"structured_outputs": {"json": SCHEMA}, "response_format": schema_format(SCHEMA)},
     "structured_outputs"),
]  # fmt: skip


def test_an_invalid_format_is_refused_by_name_and_harms_nobody(live):
    before = ask(live)
    for fields, param in INVALID:
        reply = live.chat(**fields)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), fields
        assert "PLANTED" not in reply.text
    assert ask(live) == before


def test_a_format_goes_with_no_begun_answer(live):
    last = {"role": "assistant", "content": "{", "prefix": True}
    messages = [{"role": "user", "content": "json"}, last]
    for kind in ({"type": "json_object"}, {"type": "regex", "regex": "a"}, schema_format(SCHEMA)):
        reply = live.chat(messages=messages, response_format=kind)
        assert reply.status_code == 400
        assert "should not be used with prefix" in reply.json()["error"]["message"]


def test_a_model_that_opens_its_thought_itself_is_bound_behind_it(start) -> None:
    """As R1-0528 does: the prompt ends where the answer begins."""
    encoder = DeepSeekR1("deepseek_r1_0528", starts_in_reasoning=False)
    with start(shipped_engine(), encoder=encoder) as running:
        for seed in range(3):
            choice = ask(running, response_format=schema_format(SCHEMA), seed=seed, temperature=1.0)
            if choice["finish_reason"] == "stop":
                check_schema(choice["message"]["content"])
        # the grammar leaves the first token to it: with a push it thinks, and all of it is thought
        think = str(running.service.tokenizer.special("<think>"))
        forced = ask(
            running, response_format=schema_format(SCHEMA), logit_bias={think: 100}, max_tokens=9
        )
        assert forced["message"]["content"] == ""
