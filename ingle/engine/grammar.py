"""Grammars that bind a request's output: JSON, a JSON schema, a regular expression, a list, Lark.

llguidance (Earley parser over derivatives of regular expressions) knows which tokens may come
next. This file puts our tokenizer and our limits around its compiler; `grammar_state` follows one
sequence. Compiling takes a millisecond for what people write. It cannot be interrupted, so what
could take long is refused by size before: see GrammarLimits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import zip_longest
from threading import Lock
from time import thread_time
from typing import TYPE_CHECKING, Any, Literal

from ingle.engine.grammar_state import GrammarState
from ingle.errors import InvalidRequestError
from ingle.prompt.json_schema import Schema, SchemaLimits, Step, children, prepare_schema, refuse

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

    from ingle.prompt.tokenizer import Tokenizer

Kind = Literal["json_object", "json_schema", "regex", "choice", "lark", "calls"]

_WHITESPACE = r"[ \n\r\t]{1,40}"  # between parts of JSON: no model may write blanks for ever
# R1 puts up to two newlines behind a thought. To JSON they do no harm, elsewhere they might.
_AFTER_THOUGHT = "start: NEWLINES? @body\nNEWLINES: /\\n{1,2}/"
_HEADER = re.compile(r"^\s*[a-z_?!][\w?!-]*\s*\[([^\]\n]*)\]\s*:", re.MULTILINE)
_ATTRIBUTE = re.compile(r"\b(max_tokens|temperature|stop|stop_capture)\s*=")


@dataclass(frozen=True)
class GrammarLimits:
    """What a grammar may cost.

    source: bytes of all schemas or choices together, annotations aside. regex, lark: bytes of a
    regular expression or of a Lark grammar (without its schemas), whose compile time may grow with
    its square. calls: bytes of what `call_grammar` wrote, and of the schemas in it. choices: of a
    list. seconds: of processor time; a compile that took longer is refused. The rest are
    llguidance's own, in its units: step_fuel, step_items and row_items bound the time of one mask
    (the worst that was found takes 0.2 s, once), states the memory of a grammar.
    """

    source: int = 1 << 17
    regex: int = 1 << 12
    lark: int = 1 << 13
    calls: int = 1 << 19
    choices: int = 1000
    seconds: float = 1.0
    schema: SchemaLimits = field(default_factory=SchemaLimits)
    fuel: int = 500_000
    states: int = 60_000
    symbols: int = 100_000
    step_fuel: int = 100_000
    step_items: int = 50_000
    row_items: int = 5000


@dataclass(frozen=True, eq=False)
class Grammar:
    """A compiled grammar for models of one vocabulary; may be shared by any number of requests.

    start_after: the token behind which it begins, None where it binds the first token. opened_by:
    it begins behind `start_after` only where this is the first token, and otherwise at once.
    """

    kind: Kind
    start_after: int | None
    opened_by: int | None
    vocab: int
    eos_ids: frozenset[int]
    _matcher: LLMatcher

    def start(self) -> GrammarState:
        """The state of a sequence that has generated nothing yet."""
        copy = self._matcher.deep_copy()
        return GrammarState(copy, self.start_after, self.opened_by, self.eos_ids, self.vocab)


class GrammarCompiler:
    """Compiles grammars for one tokenizer; may be called from any thread.

    vocab: rows of the model's output, which may be more than the tokenizer has tokens for.
    eos_ids: the tokens that end an output; no other special token can be generated, but for those
    that a Lark grammar names.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab: int,
        eos_ids: Collection[int],
        limits: GrammarLimits | None = None,
    ) -> None:
        self.limits = limits or GrammarLimits()
        self._tokenizer = tokenizer
        self._vocab = vocab
        self._eos_ids = frozenset(eos_ids) or frozenset({tokenizer.eos_id})
        self._lock = Lock()
        self._built: LLTokenizer | None = None

    def compile(
        self,
        kind: Kind,
        source: Any = None,
        start_after: int | None = None,
        param: str = "response_format",
        opened_by: int | None = None,
    ) -> Grammar:
        """Compile a grammar.

        source: nothing for json_object, a schema as a dict or as JSON text, a regular expression
        (Rust's syntax; it has to match the whole output), a list of strings, a Lark grammar, what
        `prompt.call_grammar` wrote.
        start_after: the id of `</think>` where the output begins inside a thought, or where its
        first token may open one: `opened_by` is then that of `<think>`. Raises InvalidRequestError,
        which names `param`, for what is invalid, unsupported or too large.
        """
        self._llguidance()  # its time is not the grammar's
        started = thread_time()
        body = self._body(kind, source, param)
        matcher = self._matcher(body, start_after)
        if matcher.is_error():
            why = matcher.get_error()
            if kind == "json_schema":
                self._locate(body["json_schema"], started, param)
                raise refuse((), _schema_reason(why), param)
            raise InvalidRequestError(_reason(kind, why), param)
        _try_out(matcher.deep_copy(), param)
        if thread_time() - started > self.limits.seconds:
            raise InvalidRequestError("The grammar is too complex to be compiled in time.", param)
        return Grammar(kind, start_after, opened_by, self._vocab, self._eos_ids, matcher)

    def _body(self, kind: Kind, source: Any, param: str) -> dict[str, Any]:
        """The source as llguidance takes it, within our limits."""
        if kind == "json_object":
            return {"json_schema": _with_options({"type": "object"})}
        if kind == "json_schema":
            schema = prepare_schema(self._parsed(source, param), self.limits.schema, param)
            _check_size(_dumps(schema, param), self.limits.source, param)
            return {"json_schema": _with_options(schema)}
        if kind == "choice":
            return {"lark_grammar": f"start: /{self._choices(source, param)}/"}
        if not isinstance(source, str) or not source:
            raise InvalidRequestError("The grammar must be a text that is not empty.", param)
        if kind in ("lark", "calls"):
            most = self.limits.lark if kind == "lark" else self.limits.calls
            return {"lark_grammar": self._lark(source, most, param)}
        from llguidance import regex_to_lark

        _check_size(source, self.limits.regex, param)
        return {"lark_grammar": f"start: /{regex_to_lark(source, use_ascii='')}/"}

    def _lark(self, source: str, most: int, param: str) -> str:
        """A Lark grammar with its inline schemas prepared like any other."""
        parts, schemas, end = [], [], 0
        decode = json.JSONDecoder().raw_decode
        for found in re.finditer(r"%json\s*(?=\{)", source):
            if found.start() < end:  # inside of the schema before it
                continue
            parts.append(source[end : found.end()])
            try:
                schema, end = decode(source, found.end())
            except (ValueError, RecursionError):
                raise InvalidRequestError("A %json of the grammar is invalid.", param) from None
            prepared = prepare_schema(schema, self.limits.schema, param)
            schemas.append(_dumps(_with_options(prepared), param))
        parts.append(source[end:])
        _check_size("".join(parts), most, param)
        _check_size("".join(schemas), max(most, self.limits.source), param)
        if any(_ATTRIBUTE.search(header[1]) for part in parts for header in _HEADER.finditer(part)):
            raise InvalidRequestError(
                "The grammar uses max_tokens, temperature or stop of a rule, which are not "
                "supported; use a bounded repetition, suffix or lazy.",
                param,
            )
        return "".join(a + b for a, b in zip_longest(parts, schemas, fillvalue=""))

    def _parsed(self, source: Any, param: str) -> Any:
        if not isinstance(source, str):
            return source
        _check_size(source, self.limits.source, param)
        try:
            return json.loads(source)
        except (ValueError, RecursionError):
            raise InvalidRequestError("The schema is not valid JSON.", param) from None

    def _choices(self, source: Any, param: str) -> str:
        if isinstance(source, str) or not all(isinstance(c, str) and c for c in source or ("",)):
            raise InvalidRequestError("choice takes a list of strings that are not empty.", param)
        if len(source) > self.limits.choices:
            most = self.limits.choices
            raise InvalidRequestError(f"choice takes at most {most} strings.", param)
        _check_size("".join(source), self.limits.source, param)
        return "|".join(map(_literal, source))

    def _matcher(self, body: dict[str, Any], start_after: int | None) -> LLMatcher:
        from llguidance import LLMatcher

        grammars = [body]
        if start_after is not None and "json_schema" in body:
            grammars = [{"lark_grammar": _AFTER_THOUGHT}, {"name": "body", **body}]
        text = json.dumps({"grammars": grammars})
        return LLMatcher(self._llguidance(), text, log_level=0, limits=self._parser_limits())

    def _parser_limits(self) -> LLParserLimits:
        from llguidance import LLParserLimits

        limits = self.limits
        return LLParserLimits(
            initial_lexer_fuel=limits.fuel,
            step_lexer_fuel=limits.step_fuel,
            step_max_items=limits.step_items,
            max_items_in_row=limits.row_items,
            max_lexer_states=limits.states,
            max_grammar_size=limits.symbols,
            verbose_errors=False,
        )

    def _llguidance(self) -> LLTokenizer:
        """Our vocabulary as a trie, built on first use (0.4 s for 129,280 tokens)."""
        with self._lock:
            if self._built is None:
                from llguidance import LLTokenizer

                words = _Vocabulary(self._tokenizer, self._vocab, self._eos_ids)
                self._built = LLTokenizer(words, eos_token=sorted(self._eos_ids))  # type: ignore[arg-type]
            return self._built

    def _locate(self, schema: dict[str, Any], started: float, param: str) -> None:
        """Raise for the smallest part of a schema that cannot be compiled by itself."""
        shared: dict[str, Any] = {
            name: schema[name] for name in ("$defs", "definitions") if name in schema
        }

        def why(part: Schema) -> str:
            if isinstance(part, bool):
                return ""
            body = {"json_schema": _with_options({**part, **shared})}
            return str(self._matcher(body, None).get_error())

        place, reason = _descend(schema, why, started + self.limits.seconds)
        if place:
            raise refuse(place, _schema_reason(reason), param)


class _Vocabulary:
    """Our tokenizer as llguidance's TokenizerWrapper wants it: bytes of each token, and `encode`.

    Every added token counts as special, as everywhere in ingle. Rows without a token, and the byte
    0xFF, which UTF-8 never holds and llguidance marks specials with, are empty: never allowed.
    """

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Tokenizer, vocab: int, eos_ids: frozenset[int]) -> None:
        self.eos_token_id = min(eos_ids)
        self.bos_token_id = None
        self.special_token_ids = [
            token for token in range(vocab) if tokenizer.is_special(token) or token in eos_ids
        ]
        tokens = map(tokenizer.token_bytes, range(vocab))
        self.tokens = [b"" if token[:1] == b"\xff" else token for token in tokens]
        self._encode = tokenizer.encode

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


def _try_out(matcher: LLMatcher, param: str) -> None:
    """Refuse a grammar that allows no first token, soon becomes complex or cannot be taken back."""
    mask = int.from_bytes(matcher.compute_bitmask(), "little")
    if matcher.is_error() or not mask:
        raise InvalidRequestError("The grammar allows no output at all.", param)
    matcher.consume_token(mask.bit_length() - 1)
    matcher.compute_bitmask()
    if not matcher.rollback(1):
        raise InvalidRequestError(
            "The grammar is too complex or uses what is not supported.", param
        )


def _descend(schema: Schema, why: Callable[[Schema], str], deadline: float) -> tuple[Step, str]:
    """The way to the innermost schema that fails on its own, and its failure."""
    place: Step = ()
    reason = ""
    failing: Schema | None = schema
    while failing is not None:
        parent, failing = failing, None
        for way, below in children(parent):
            if thread_time() > deadline:
                break
            if found := why(below):
                place, reason, failing = (*place, *way), found, below
                break
    return place, reason


def _with_options(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "x-guidance": {"whitespace_pattern": _WHITESPACE}}


def _dumps(value: Any, param: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise InvalidRequestError("The schema holds a value that is not JSON.", param) from None


def _check_size(text: str, most: int, param: str) -> None:
    if len(text) > most or len(text.encode(errors="surrogatepass")) > most:
        raise InvalidRequestError(f"The grammar may take {most} bytes.", param)
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise InvalidRequestError("The grammar holds half a surrogate pair.", param)


def _literal(text: str) -> str:
    """A regular expression for exactly this text."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)


# The library's messages quote the source, so only their kind is passed on. The first that fits.
_REASONS = (
    ("look-around", "look-around and word boundaries are not supported in a pattern"),
    ("lookaround", "look-around and word boundaries are not supported in a pattern"),
    ("regex parse error", "the pattern is not a valid regular expression"),
    ("Invalid type", "this type is unknown"),
    ("nknown format", "this format is not supported"),
    ("oneOf", "options of oneOf must differ in a type or a constant; use anyOf"),
    ("nsatisfiable", "no value can satisfy it"),
    ("disjoint", "names that match several patternProperties are not supported"),
    ("multipleOf", "this multipleOf is not supported"),
    ("float range", "the range of the number is too fine"),
    ("integer range", "the range of the number is too fine"),
    ("roperties", "these bounds on the number of properties are not supported"),
    ("recursion limit", "it is nested too deep"),
    ("too large", "it is too complex"),
    ("too big", "it is too complex"),
    ("limit", "it is too complex"),
)


def _schema_reason(why: str) -> str:
    return next((words for mark, words in _REASONS if mark in why), "it is not supported")


def _reason(kind: Kind, why: str) -> str:
    what = {"regex": "regular expression", "choice": "list of choices"}.get(kind, "grammar")
    place = re.match(r"(?:at )?(\d+)\(\d+\)", why) if kind == "lark" else None
    where = f" in line {place[1]}" if place else ""
    if "look-around" in why or "lookaround" in why:
        return f"The {what} uses look-around or word boundaries{where}, which are not supported."
    if "special token" in why or "Token range" in why:
        return f"The {what} names a token{where} that the vocabulary does not have."
    if "too big" in why or "too large" in why or "limit" in why or "too deeply" in why:
        return f"The {what} is too complex{where}."
    if "unknown name" in why:
        return f"The {what} uses a rule{where} that is not defined."
    return f"The {what} is not valid{where}."
