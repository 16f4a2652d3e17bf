"""What a model with random weights writes under a grammar is always what the grammar says."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from ingle.engine.grammar import Grammar
from ingle.engine.request import Request, SamplingParams
from ingle.errors import InvalidRequestError
from ingle.prompt.encoder import END_THINK
from tests.engine import tiny
from tests.engine.drive import Done, run
from tests.engine.schemas import BY_HAND, PERSON, TREE, random_schema

FORMATS = jsonschema.Draft202012Validator.FORMAT_CHECKER


def params(seed: int, grammar: Grammar | None, **more: Any) -> SamplingParams:
    """Every fourth seed greedy, some with filters and penalties."""
    base: dict[str, Any] = {"temperature": 0.0 if seed % 4 == 0 else 1.0, "max_tokens": 300}
    kinds: list[dict[str, Any]] = [{}, {"top_p": 0.9}, {"top_k": 20}, {"frequency_penalty": 0.3}]
    base |= kinds[seed % 4] | {"logit_bias": tiny.closing()}
    return SamplingParams(seed=seed, grammar=grammar, **(base | more))


def validate(text: str, schema: dict[str, Any]) -> None:
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    kind(schema, format_checker=FORMATS).validate(json.loads(text))


@pytest.mark.slow
def test_every_finished_output_validates() -> None:
    schemas = BY_HAND + [random_schema(seed) for seed in range(180)]
    requests, of = [], {}
    for index, schema in enumerate(schemas):
        grammar = tiny.compiler().compile("json_schema", schema)
        for seed in (index, index + 1):
            name = f"{index}.{seed}"
            requests.append(Request(name, [1, 2, index], params(seed, grammar)))
            of[name] = schema
    engine = tiny.engine(max_sequences=48, max_waiting=1000, speculative="on", draft_length=2)
    outputs = run(engine, requests)
    reasons = Counter(done.reason for done in outputs.values())
    assert len(schemas) >= 230 and reasons["stop"] > 0.95 * len(requests)
    assert set(reasons) <= {"stop", "length"}
    for name, done in outputs.items():
        if done.reason == "stop":
            validate(done.text, of[name])
    assert engine.stats().drafted[1] > 100  # drafts were verified under grammars, too


SOURCES: list[tuple[str, Any, int]] = [
    ("json_object", None, 3),
    ("json_schema", PERSON, 3),
    ("json_schema", TREE, 3),
    ("json_schema", {"type": "array", "items": {"type": "integer"}}, 3),
    ("regex", r"([a-z]{1,4}@){2,5}x", 3),
    ("regex", "é+[0-9]{2}", 3),
    ("choice", ["yes", "no", "yesterday", "né"], 3),
    ("lark", 'start: "(" start ")" | NUMBER\nNUMBER: /[0-9]{1,3}/', 3),
]


def requests_of(start_after: int | None = None, **more: Any) -> list[Request]:
    requests = []
    for index, (kind, source, count) in enumerate(SOURCES):
        grammar = tiny.compiler().compile(kind, source, start_after)  # type: ignore[arg-type]
        for seed in range(count):
            name, prompt = f"{index}.{seed}", [5 + index] * (3 + 31 * index)
            requests.append(Request(name, prompt, params(seed, grammar, **more)))
    return requests


def strangers(count: int) -> list[Request]:
    chosen = params(1, None, max_tokens=60)
    return [Request(f"s{i}", [9, i] * 20, replace(chosen, seed=i)) for i in range(count)]


def alone(request: Request) -> Done:
    return run(tiny.engine(speculative="off", prefix_cache=False), [request])[request.id]


@pytest.mark.parametrize("length", [1, 2, 4])
def test_speculation_and_company_change_no_token(length: int) -> None:
    requests = requests_of()
    engine = tiny.engine(speculative="on", draft_length=length, max_sequences=20, token_budget=100)
    outputs = run(engine, requests + strangers(6))
    assert engine.stats().accepted[0] > 50
    for request in requests:
        done = outputs[request.id]
        assert (done.ids, done.text, done.reason) == _seen(alone(request))


def _seen(done: Done) -> tuple[list[int], str, str | None]:
    return done.ids, done.text, done.reason


def test_preemption_changes_no_token() -> None:
    requests = requests_of(max_tokens=200)
    engine = tiny.engine(pages=9, max_sequences=8, speculative="on", draft_length=2)
    outputs = run(engine, requests)
    assert engine.stats().preemptions > 0
    for request in requests:
        assert _seen(outputs[request.id]) == _seen(alone(request))


def test_nothing_but_the_end_follows_a_complete_output() -> None:
    outputs = run(tiny.engine(), requests_of())
    for name, done in outputs.items():
        kind, source, _ = SOURCES[int(name[0])]
        assert done.last and done.last.stop_reason in (None, tiny.tokenizer().eos_id)
        if kind == "choice":
            assert done.reason == "stop" and done.text in source
        specials = [i for i in done.ids if tiny.tokenizer().is_special(i)]
        assert specials in ([], [tiny.tokenizer().eos_id]), "a special token inside the output"
        assert max(done.ids) < tiny.tokenizer().vocab_size, "a row without a token was chosen"


def test_a_grammar_waits_for_the_end_of_the_thought() -> None:
    """Until then only the end is forbidden, and two newlines may stand before JSON."""
    close = tiny.tokenizer().special(END_THINK)
    bias = tiny.closing() | {close: 4.0}
    requests = requests_of(close, logit_bias=bias, max_tokens=120)
    outputs = run(tiny.engine(speculative="on", draft_length=3), requests + strangers(4))
    lengths, newlines, eos = set(), set(), tiny.tokenizer().eos_id
    for request in requests:
        done = outputs[request.id]
        assert _seen(done) == _seen(alone(request))
        if done.reason != "stop":
            continue
        cut = done.ids.index(close)
        assert eos not in done.ids[:cut]
        text = tiny.tokenizer().decode(done.ids[cut + 1 :])
        answer = text.lstrip("\n")
        newlines |= {len(text) - len(answer)} if request.id[0] in "012" else set()
        lengths.add(cut)
        kind, source, _ = SOURCES[int(request.id[0])]
        if kind == "json_schema":
            validate(answer, source)
        elif kind == "choice":
            assert answer in source
    assert len(lengths) > 3 and len(newlines) > 1 and newlines <= {0, 1, 2}


def test_logprobs_are_those_of_the_model_without_the_grammar() -> None:
    grammar = tiny.compiler().compile("choice", ["abc"])
    request = Request("a", [3, 4, 5], SamplingParams(temperature=0.0, logprobs=2, grammar=grammar))
    done = alone(request)
    free = alone(Request("b", [3, 4, 5], SamplingParams(max_tokens=1, temperature=0.0, logprobs=2)))
    assert done.text == "abc"
    assert done.tokens[0].top_logprobs == free.tokens[0].top_logprobs
    assert done.tokens[0].logprob is not None and done.tokens[0].logprob < -1.0


def test_one_grammar_serves_many_requests_and_stays_as_it_was() -> None:
    grammar = tiny.compiler().compile("json_schema", PERSON)
    requests = [Request(str(i), [7], params(i, grammar)) for i in range(12)]
    first = run(tiny.engine(), requests)
    again = run(tiny.engine(), requests)
    assert {n: d.ids for n, d in first.items()} == {n: d.ids for n, d in again.items()}


def test_a_grammar_that_becomes_too_complex_ends_its_request_only() -> None:
    limits = replace(tiny.compiler().limits, step_items=400, row_items=60)
    strict = type(tiny.compiler())(tiny.tokenizer(), tiny.CONFIG.vocab_size, [1], limits)
    grammar = strict.compile("lark", 'start: e\ne: e e | "a"')
    good = requests_of()[0]
    bad = Request("bad", [7], params(1, grammar, logit_bias={1: -100.0}))
    outputs = run(tiny.engine(), [bad, good])
    last = outputs["bad"].last
    assert last and last.finish_reason == "error" and last.error
    assert "too complex" in last.error and len(outputs["bad"].ids) > 3
    assert _seen(outputs[good.id]) == _seen(alone(good))


def test_what_does_not_go_together_is_refused() -> None:
    grammar = tiny.compiler().compile("json_object")
    with pytest.raises(InvalidRequestError, match="ignore_eos"):
        SamplingParams(grammar=grammar, ignore_eos=True)
    other = replace(grammar, vocab=100)
    with pytest.raises(InvalidRequestError, match="another model"):
        tiny.engine().submit(Request("a", [1], SamplingParams(grammar=other)))
