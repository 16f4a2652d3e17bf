"""A model with random weights writes calls that parse, with arguments as they were promised."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest

from ingle.engine.grammar import Grammar, GrammarCompiler
from ingle.engine.request import Request, SamplingParams
from ingle.errors import InvalidRequestError
from ingle.prompt.call_grammar import call_grammar
from ingle.prompt.encoder import CALLS, DSML, END_CALL, END_CALLS, END_THINK, THINK
from ingle.prompt.parser import reply_parser
from ingle.prompt.select import ENCODERS
from ingle.prompt.tokenizer import Tokenizer
from tests.engine import tiny
from tests.engine.drive import Done, run
from tests.prompt.vocabulary import SPECIALS, V41, byte_tokenizer

FORMATS = [
    "deepseek_v3", "deepseek_r1", "deepseek_r1_0528", "deepseek_v31",
    "deepseek_v32", "deepseek_v32 plain", "deepseek_v4", "deepseek_v41",
]  # fmt: skip


def tool(name: str, parameters: dict[str, Any] | None, strict: bool = True) -> dict[str, Any]:
    function = {"name": name, "description": "d", "parameters": parameters, "strict": strict}
    return {"type": "function", "function": function}


def closed(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"type": "object", "additionalProperties": False}
    return {**base, "properties": properties, "required": list(properties), **more}


TOOLS = [
    tool("weather", closed({
        "city": {"type": "string", "description": "any text"},
        "unit": {"enum": ["C", "F", "né <a>", None, 3]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    })),
    tool("many-kinds", closed({
        "empty": {"enum": ["", "full"]},
        "loop": {"anyOf": [{"$ref": "#/$defs/loop"}, {"type": "null"}]},
        "code": {"type": "string", "pattern": "^[a-c]{2}$"},
        "short": {"type": "string", "maxLength": 2},
        "maybe": {"type": ["string", "null"]},
        "either": {"anyOf": [{"type": "string"}, {"type": "boolean"}]},
        "point": {"$ref": "#/$defs/point"},
        "tree": {"$ref": "#/$defs/tree"},
        "fixed": {"const": "always"},
    }, **{"$defs": {
        "loop": {"anyOf": [{"$ref": "#/$defs/loop"}, {"type": "boolean"}]},
        "point": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        "tree": closed({"below": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/tree"}]}}),
    }})),
    tool("optional", closed({"a": {"type": "boolean"}, "b": {"type": "null"}}, required=["b"])),
    tool("nothing", closed({})),
    tool("loose", {"type": "object", "properties": {"a": {"type": "integer"}}}, strict=False),
    tool("looser", None, strict=False),
]  # fmt: skip
BY_NAME = {entry["function"]["name"]: entry["function"] for entry in TOOLS}


def tokenizer_of(form: str) -> Tokenizer:
    return byte_tokenizer(V41 if form.split("_")[1] in ("v32", "v4", "v41") else SPECIALS)


def compile_for(form: str, tools: list[dict[str, Any]], **choice: Any) -> tuple[Grammar, Tokenizer]:
    tokenizer = byte_tokenizer() if form.endswith("plain") else tokenizer_of(form)
    text = call_grammar(form.split()[0], tokenizer, tools, **choice)
    compiler = GrammarCompiler(tokenizer, tiny.CONFIG.vocab_size, [tokenizer.eos_id])
    start_after = choice.get("start_after")
    return compiler.compile("calls", text, start_after, "tools"), tokenizer


def bias(tokenizer: Tokenizer) -> dict[int, float]:
    """Towards the ends of things and towards calls: a random model rarely gets there."""
    found = {tokenizer.encode(text)[0]: 5.0 for text in '"}]'}
    found |= {tokenizer.encode(text)[0]: 7.0 for text in "</"}
    for name in (DSML, END_CALL, END_CALLS):
        if (index := tokenizer.find_special(name)) is not None:
            found[index] = 8.0
    return found


def generate(
    grammar: Grammar,
    tokenizer: Tokenizer,
    count: int,
    prompt: list[int],
    more: dict[int, float] | None = None,
) -> list[Done]:
    params = [
        SamplingParams(
            max_tokens=300,
            seed=seed,
            temperature=1.3,
            grammar=grammar,
            logit_bias=bias(tokenizer) | (more or {}),
        )
        for seed in range(count)
    ]
    engine = tiny.engine(tokenizer, speculative="off")
    requests = [Request(str(i), [*prompt, 30 + i], p) for i, p in enumerate(params)]
    return list(run(engine, requests).values())


def parse(form: str, tokenizer: Tokenizer, prompt: list[int], done: Done) -> tuple[str, list[Any]]:
    """Content, and calls as (name, arguments)."""
    parser = reply_parser(form.split()[0], tokenizer, prompt)
    deltas = [d for token in done.tokens for d in parser.push(token.id, token.text)]
    deltas += parser.finish()
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        if delta.kind == "call":
            calls.setdefault(delta.call, [delta.name, ""])[1] += delta.text
    content = "".join(delta.text for delta in deltas if delta.kind == "content")
    return content, [(name, json.loads(text or "{}")) for name, text in calls.values()]


def check(calls: list[tuple[str, Any]]) -> None:
    for name, arguments in calls:
        function = BY_NAME[name]
        assert isinstance(arguments, dict)
        if function["strict"]:
            jsonschema.Draft202012Validator(function["parameters"]).validate(arguments)


def tools_for(form: str) -> list[dict[str, Any]]:
    """No random model spells `</｜DSML｜` out, which alone ends a free text without the token."""
    return TOOLS[2:4] if form.endswith("plain") else TOOLS


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_required_calls_come_at_once_and_validate(form: str) -> None:
    names: Counter[str] = Counter()
    for parallel in (True, False):
        grammar, tokenizer = compile_for(form, tools_for(form), required=True, parallel=parallel)
        sizes = set()
        for done in generate(grammar, tokenizer, 10, [5]):
            if done.reason != "stop":
                continue
            content, calls = parse(form, tokenizer, [5], done)
            assert content == "" and len(calls) >= 1
            check(calls)
            names.update(name for name, _ in calls)
            sizes.add(len(calls))
        assert sizes and (parallel or sizes == {1})
    assert names.total() >= 8 and len(names) >= 2


@pytest.mark.parametrize("form", ["deepseek_v3", "deepseek_v31", "deepseek_v32", "deepseek_v41"])
def test_a_named_tool_is_the_one_that_is_called(form: str) -> None:
    grammar, tokenizer = compile_for(form, TOOLS, required=True, named="weather", parallel=False)
    finished = [d for d in generate(grammar, tokenizer, 8, [5]) if d.reason == "stop"]
    assert len(finished) >= 4
    for done in finished:
        _, calls = parse(form, tokenizer, [5], done)
        check(calls)
        assert [name for name, _ in calls] == ["weather"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["deepseek_v3", "deepseek_v31", "deepseek_v32", "deepseek_v4"])
def test_without_force_text_may_come_first_or_alone(form: str) -> None:
    grammar, tokenizer = compile_for(form, TOOLS[:4], required=False)
    more = {tokenizer.eos_id: 4.0}
    if (calls_begin := tokenizer.find_special(CALLS)) is not None:
        more[calls_begin] = 4.0
    with_calls = without = 0
    for done in generate(grammar, tokenizer, 16, [5], more):
        if done.reason != "stop":
            continue
        content, calls = parse(form, tokenizer, [5], done)
        check(calls)
        with_calls += bool(calls)
        without += bool(content) and not calls
    assert with_calls >= 2 and without >= 2


def accepts(grammar: Grammar, tokens: list[int]) -> bool:
    state = grammar.start()
    for token in tokens:
        logits = np.zeros(grammar.vocab, np.float32)
        state.restrict(logits, ())
        if state.ended or logits[token] < 0:
            return False
        state.commit(token)
    return True


@pytest.mark.parametrize("form", FORMATS)
def test_what_the_encoder_writes_is_what_the_grammar_reads(form: str) -> None:
    """The turn of a conversation with two calls, as the prompt of the next turn holds it."""
    arguments = [
        {"city": "</div> <b>\nnot </ the end", "unit": "F", "days": 3},
        {"b": None},
    ]
    calls = [
        {"id": str(i), "type": "function", "function": {
            "name": ("weather", "optional")[i], "arguments": json.dumps(arguments[i])}}
        for i in range(2)
    ]  # fmt: skip
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "Let me <see>.", "tool_calls": calls},
        *({"role": "tool", "tool_call_id": str(i), "content": "R"} for i in range(2)),
    ]
    tokenizer = byte_tokenizer() if form.endswith("plain") else tokenizer_of(form)
    encoder = ENCODERS[form.split()[0]]
    after = encoder.encode(messages, tokenizer, tools=TOOLS, thinking=False)
    text = tokenizer.encode("Let me")
    start = next(i for i in range(len(after)) if after[i : i + len(text)] == text)
    end = next(i for i in range(start, len(after)) if after[i] == tokenizer.eos_id)
    turn = after[start:end]
    assert len(turn) > 50
    for parallel in (True, False):
        grammar, _ = compile_for(form, TOOLS, required=False, parallel=parallel)
        assert accepts(grammar, turn) == parallel
    grammar, _ = compile_for(form, TOOLS, required=True)
    skip = len(tokenizer.encode("Let me <see>."))
    assert accepts(grammar, turn[skip:]) and not accepts(grammar, turn)
    without_days = [token for token in turn if token not in tokenizer.encode("3")]
    assert not accepts(compile_for(form, TOOLS, required=False)[0], without_days)


def test_a_thought_comes_before_the_calls() -> None:
    tokenizer = byte_tokenizer(V41)
    prompt = [5, tokenizer.special(THINK)]
    text = call_grammar("deepseek_v4", tokenizer, TOOLS, required=True)
    compiler = GrammarCompiler(tokenizer, tiny.CONFIG.vocab_size, [tokenizer.eos_id])
    grammar = compiler.compile("calls", text, tokenizer.special(END_THINK))
    found = 0
    for done in generate(grammar, tokenizer, 12, prompt, {tokenizer.special(END_THINK): 6.0}):
        if done.reason == "stop":
            _, calls = parse("deepseek_v4", tokenizer, prompt, done)
            check(calls)
            found += 1
    assert found >= 2


def test_refusals() -> None:
    tokenizer = byte_tokenizer(V41)

    def refused(
        form: str, tools: list[dict[str, Any]], words: str, param: str, **choice: Any
    ) -> None:
        with pytest.raises(InvalidRequestError, match=words) as caught:
            call_grammar(form, tokenizer, tools, **({"required": True} | choice))
        assert caught.value.param == param

    refused("deepseek_llm", TOOLS, "no tools", "tools")
    refused("deepseek_v4", TOOLS, "not offered", "tool_choice", named="nobody")
    where = "tools[1].function.parameters"
    for form in ("deepseek_v3", "deepseek_v4"):
        bad = [TOOLS[0], tool("bad", closed({"a": {"not": {}}}))]
        refused(form, bad, "at /properties/a/not: this keyword", where)
    for parameters in ({"anyOf": [closed({})]}, closed({"a": {"$ref": "#"}}), {"type": "array"}):
        refused("deepseek_v4", [TOOLS[0], tool("bad", parameters)], "cannot be enforced", where)
    refused("deepseek_v4", [TOOLS[0], tool("bad", closed({'a"': {}}))], "a quote", where)
    refused("deepseek_v4", [TOOLS[0], tool("bad", closed({"a": False}))], "no value", where)


@pytest.mark.parametrize("form", ["deepseek_v3", "deepseek_v41"])
def test_many_tools_compile_in_time(form: str) -> None:
    properties = {f"p{index}": {"type": "string"} for index in range(8)}
    many = [tool(f"t{index}", closed(properties)) for index in range(512)]
    grammar, _ = compile_for(form, many, required=True)
    assert grammar.kind == "calls"
