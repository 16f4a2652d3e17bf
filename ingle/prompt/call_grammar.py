"""Lark grammars, as llguidance reads them, for the tool calls of each generation.

They bind what `tool_choice` and strict tools promise: a call has the name of a tool, and the
arguments of a strict tool are those of its schema. Special tokens are named by id, `<[128806]>`,
so text can never make one. Three forms:

    V3, R1    CALLS CALL function SEP NAME \\n ```json \\n ARGUMENTS \\n ``` END_CALL ... END_CALLS
    V3.1      CALLS CALL NAME SEP ARGUMENTS END_CALL ... END_CALLS
    DSML      \\n\\n<DSML calls>\\n<DSML invoke name="NAME">\\n<DSML parameter ...>VALUE ...

A DSML value that may be any text stands as text; where the schema bounds the text (a pattern, a
length, a format) it is written as a JSON string, string="false", which every reader of DSML takes
and which alone can be bound. Parameters come in the order of the schema.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ingle.errors import InvalidRequestError
from ingle.prompt.dsml import V4_TAGS, V32_TAGS, V41_TAGS, Tags
from ingle.prompt.encoder import CALL, CALLS, DSML, END_CALL, END_CALLS, SEP
from ingle.prompt.json_schema import SchemaLimits, prepare_schema
from ingle.prompt.messages import Tool, read_tools

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

_DSML_TAGS: dict[str, Tags] = {
    "deepseek_v32": V32_TAGS,
    "deepseek_v4": V4_TAGS,
    "deepseek_v41": V41_TAGS,
}
_FENCED = ("deepseek_v3", "deepseek_r1", "deepseek_r1_0528")
_NOT_TEXT = ["object", "array", "number", "boolean", "null"]
_QUOTE, _TEXT, _JSON = '" string=', '"true">', '"false">'
_GROUPS = ("$defs", "definitions")
_MOST_DEPTH = 3  # of options inside of options, which may lead back to themselves
_PLAIN = ("type", "properties", "required", "additionalProperties", "$schema", *_GROUPS)


def call_grammar(
    encoder_name: str,
    tokenizer: Tokenizer,
    tools: Sequence[Mapping[str, Any]],
    required: bool,
    named: str | None = None,
    parallel: bool = True,
) -> str:
    """The grammar of a reply that may or must call tools, OpenAI-shaped as `read_tools` takes them.

    required: calls come at once; otherwise text may stand before them or instead of them. named:
    the one tool to call. parallel: whether there may be more than one call. Raises
    InvalidRequestError for a format without tools and for a strict tool whose schema cannot be
    enforced, ConfigError where the tokenizer lacks a token of the format.
    """
    known = [(index, t) for index, t in enumerate(read_tools(tools)) if named in (None, t.name)]
    if not known:
        raise InvalidRequestError("tool_choice names a tool that is not offered.", "tool_choice")
    if encoder_name in _DSML_TAGS:
        form: _Form = _Dsml(tokenizer, _DSML_TAGS[encoder_name])
    elif encoder_name == "deepseek_v31":
        form = _Tokens(tokenizer, fenced=False)
    elif encoder_name in _FENCED:
        form = _Tokens(tokenizer, fenced=True)
    else:
        raise InvalidRequestError("This model's prompt format has no tools.", "tools")
    rules = [f"call: {' | '.join(f'call_{index}' for index, _ in known)}"]
    for index, tool in known:
        rules += form.call(index, tool)
    return "\n".join([*form.frame(required, parallel), *rules, *form.shared()]) + "\n"


class _Form(ABC):
    """How one generation writes calls, as rules of a grammar."""

    @abstractmethod
    def frame(self, required: bool, parallel: bool) -> list[str]:
        """Rules for everything round `call`; the first one is `start`."""

    @abstractmethod
    def call(self, index: int, tool: Tool) -> list[str]:
        """Rules for `call_INDEX`."""

    def shared(self) -> list[str]:
        """Rules that calls may use."""
        return [f"object: {_json({'type': 'object'})}", "TEXT: /(.|\\n)*/"]


class _Tokens(_Form):
    """Calls between special tokens; `fenced`: V3's form, otherwise V3.1's."""

    def __init__(self, tokenizer: Tokenizer, fenced: bool) -> None:
        names = (CALLS, END_CALLS, CALL, END_CALL, SEP)
        ids = (f"<[{tokenizer.special(name)}]>" for name in names)
        self._calls, self._end_calls, self._call, self._end_call, self._sep = ids
        self._fenced = fenced

    def frame(self, required: bool, parallel: bool) -> list[str]:
        more = f'("\\n" {self._call} call)*' if self._fenced else f"({self._call} call)*"
        calls = f"{self._calls} {self._call} call {more if parallel else ''} {self._end_calls}"
        # R1 puts two newlines behind its thought; they belong to the format.
        before = "NEWLINES? " if self._fenced else ""
        if not required:
            return [f"start: TEXT | TEXT {calls}"]
        return [f"start: {before}{calls}", "NEWLINES: /\\n{1,2}/"]

    def call(self, index: int, tool: Tool) -> list[str]:
        arguments = "object"
        rules = []
        if _is_strict(tool):
            arguments = f"arguments_{index}"
            rules = [f"{arguments}: {_json(_strict_schema(index, tool))}"]
        if self._fenced:
            head = f'"function" {self._sep} {_quote(tool.name + chr(10) + "```json" + chr(10))}'
            return [f'call_{index}: {head} {arguments} "\\n```" {self._end_call}', *rules]
        head = f"{_quote(tool.name)} {self._sep}"
        return [f"call_{index}: {head} {arguments} {self._end_call}", *rules]


class _Dsml(_Form):
    """DSML, whose mark is a token of the vocabulary or, in V3.2, may be text.

    Text ends where `<` or `</` stands before the mark. So it is taken in pieces up to the next such
    sign, and behind each there may be the mark or more text.
    """

    def __init__(self, tokenizer: Tokenizer, tags: Tags) -> None:
        self._tags = tags
        found = tokenizer.find_special(DSML) if tags.plain else tokenizer.special(DSML)
        self._mark = None if found is None else f"<[{found}]>"

    def frame(self, required: bool, parallel: bool) -> list[str]:
        tags = self._tags
        head, calls = _quote(f"{tags.calls}>\n"), "call+" if parallel else "call"
        block = f"{head} {calls} {self._close(tags.calls)}"
        if required:
            return [f"start: {self._sign(chr(10) * 2 + '<')} {block}"]
        if self._mark is None:
            return [f"start: TEXT | upto_tag {block}", f'upto_tag[lazy]: TEXT "<{DSML}"']
        start = f"start: upto_tag* (NO_TAG | upto_tag {self._mark} {block})"
        return [start, 'upto_tag[lazy]: TEXT "<"', "NO_TAG: /[^<]*/"]

    def call(self, index: int, tool: Tool) -> list[str]:
        tags = self._tags
        head = self._open(f'{tags.invoke} name="{tool.name}">\n')
        tail = self._close(tags.invoke, "\n")
        if not _is_strict(tool):
            return [f"call_{index}: {head} parameter* {tail}"]
        schema = _strict_schema(index, tool)
        _check_plain(schema, index)
        needed = schema.get("required", ())
        rules, parts = [], []
        for place, (key, value) in enumerate(schema.get("properties", {}).items()):
            name = f"parameter_{index}_{place}"
            rules.append(f"{name}: {self._parameter(key, value, schema, index)}")
            parts.append(name if key in needed else f"{name}?")
        body = " ".join(parts)
        if not needed and tags.without_parameters:
            none = _quote(tags.without_parameters)
            body = f"({none} | {body})" if parts else none
        return [f"call_{index}: {head} {body} {tail}", *rules]

    def shared(self) -> list[str]:
        key = f"{self._open(self._tags.parameter + ' name=' + chr(34))} KEY"
        end = self._close(self._tags.parameter, "\n")
        upto_end = "</" if self._mark else f"</{DSML}"
        text, value = _quote(_QUOTE + _TEXT), _quote(_QUOTE + _JSON)
        return [
            *super().shared(),
            f"parameter: {key} ({text} text | {value} value {end})",
            f"value: {_json({'type': _NOT_TEXT})}",
            'KEY: /[^"<>\\\\\\n\\r\\t ]+/',
            f"text: {self._text()}",
            f"upto_end[lazy]: TEXT {_quote(upto_end)}",
        ]

    def _text(self) -> str:
        """A value that stands as text, with the tag that ends it."""
        rest = _quote(f"{self._tags.parameter}>\n")
        return f"upto_end {rest}" if self._mark is None else f"upto_end+ {self._mark} {rest}"

    def _parameter(self, key: str, value: Any, schema: Mapping[str, Any], index: int) -> str:
        """One parameter of a strict tool."""
        if '"' in key or not key:
            raise _refused(index, "the name of a parameter is empty or holds a quote")
        definitions = {group: schema[group] for group in _GROUPS if group in schema}
        end = self._close(self._tags.parameter, "\n")
        ways = []
        for kind, content in _ways(value, definitions):
            if kind == "text":
                ways.append(f"{_quote(_TEXT)} text")
            elif kind == "words":
                ways.append(f"{_quote(_TEXT)} ({' | '.join(map(_quote, content))}) {end}")
            else:
                whole = {**content, **definitions} if any(_references(content)) else content
                ways.append(f"{_quote(_JSON)} {_json(whole)} {end}")
        if not ways:
            raise _refused(index, "no value can satisfy one of its parameters")
        head = self._open(f'{self._tags.parameter} name="{key}" string=')
        return f"{head} ({' | '.join(ways)})"

    def _open(self, name: str, before: str = "") -> str:
        return f"{self._sign(before + '<')} {_quote(name)}"

    def _close(self, name: str, behind: str = "") -> str:
        return f"{self._sign('</')} {_quote(name + '>' + behind)}"

    def _sign(self, sign: str) -> str:
        """The start of a tag up to the mark, and the mark."""
        return f"{_quote(sign)} {self._mark}" if self._mark else _quote(sign + DSML)


def _ways(schema: Any, definitions: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """How a value may be written: ("text", None), ("words", the texts) or ("json", a schema)."""
    schema = _resolve(schema, definitions)
    if schema is True or schema == {}:
        yield "text", None
        yield "json", {"type": _NOT_TEXT}
        return
    if schema is False:
        return
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if set(schema) in ({"anyOf"}, {"oneOf"}) and depth < _MOST_DEPTH:
        for option in next(iter(schema.values())):
            yield from _ways(option, definitions, depth + 1)
    elif "const" in schema or "enum" in schema:
        yield from _listed(schema, kinds)
    elif kinds is not None and "string" in kinds and set(schema) <= {"type"}:
        yield "text", None
        if others := [kind for kind in kinds if kind != "string"]:
            yield "json", {"type": others}
    else:
        yield "json", schema


def _listed(schema: Mapping[str, Any], kinds: Any) -> Iterator[tuple[str, Any]]:
    """The ways of an enum or a constant; with other keywords beside it JSON alone is safe."""
    if not set(schema) <= {"const", "enum", "type"} or {"const", "enum"} <= set(schema):
        yield "json", schema
        return
    values = schema.get("enum", [schema.get("const")])
    words = [value for value in values if isinstance(value, str)]
    others = [value for value in values if not isinstance(value, str)]
    if words and (kinds is None or "string" in kinds):
        yield "words", words
    if others and (kinds is None or kinds != ["string"]):
        yield "json", {**({"type": schema["type"]} if "type" in schema else {}), "enum": others}


def _resolve(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema that is nothing but a reference, followed; a loop is left as it is."""
    seen = set()
    while isinstance(schema, dict) and set(schema) == {"$ref"}:
        reference = schema["$ref"]
        _, group, *names = reference.split("/")
        name = "/".join(names)
        if reference in seen or len(names) != 1 or name not in definitions.get(group, {}):
            return schema
        seen.add(reference)
        schema = definitions[group][name]
    return schema


def _references(schema: Any) -> Iterator[str]:
    """All references in a schema."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _is_strict(tool: Tool) -> bool:
    return bool(tool.source["function"].get("strict"))


def _strict_schema(index: int, tool: Tool) -> dict[str, Any]:
    """The schema of a strict tool, prepared."""
    param = f"tools[{index}].function.parameters"
    given = dict(tool.parameters) or {"type": "object", "additionalProperties": False}
    return prepare_schema(given, SchemaLimits(), param)


def _check_plain(schema: Mapping[str, Any], index: int) -> None:
    """DSML writes the properties one by one, so the schema must be nothing but properties."""
    if schema.get("type", "object") != "object" or not set(schema) <= set(_PLAIN):
        raise _refused(index, "its parameters must be an object with nothing but properties")
    roots = tuple(f"#/{group}/" for group in _GROUPS)
    if not all(reference.startswith(roots) for reference in _references(schema)):
        raise _refused(index, "references must point to $defs or definitions")


def _refused(index: int, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"A strict tool cannot be enforced: {why}.", f"tools[{index}].function.parameters"
    )


def _json(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps(schema, ensure_ascii=False)}"


def _quote(text: str) -> str:
    """A string of Lark."""
    return json.dumps(text)
