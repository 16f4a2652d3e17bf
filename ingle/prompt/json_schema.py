"""JSON schemas before they are compiled: what cannot be enforced is refused with its place.

llguidance compiles draft 2020-12 in good time for schemas of a sane size, yet names no places, and
a few keywords cost it minutes (a large `multipleOf`) or promise more than it keeps. So every schema
is walked here first: sizes are bounded, references stay inside, unknown keywords are refused where
they stand, annotations are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from math import isfinite, lcm
from typing import Any

from ingle.errors import InvalidRequestError

Schema = dict[str, Any] | bool
Step = tuple[str, ...]  # the way from a schema to one below it

_OF_NAMES = ("properties", "patternProperties", "$defs", "definitions")  # name -> schema
_OF_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "additionalItems")
_VALUES = (
    "type", "const", "enum", "required", "format", "pattern", "minLength", "maxLength",
    "minItems", "maxItems", "minProperties", "maxProperties", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "$ref",
)  # fmt: skip
_ANNOTATIONS = (
    "title", "description", "default", "example", "examples", "deprecated", "readOnly",
    "writeOnly", "$comment", "$id", "id", "$anchor", "contentMediaType", "contentEncoding",
)  # fmt: skip
_DRAFTS = ("http://json-schema.org/", "https://json-schema.org/")
_MOST_POINTER = 200  # characters of a pointer in a message


@dataclass(frozen=True)
class SchemaLimits:
    """depth: levels of JSON. properties, options, values: of objects, of anyOf and its like, of
    enums, each in the whole schema. pattern: characters of one regular expression. multiple: the
    least common multiple of all multipleOf, powers of ten aside, on which the compile time rests.
    """

    depth: int = 64
    properties: int = 1000
    options: int = 2000
    values: int = 10_000
    pattern: int = 2000
    multiple: int = 20_000


def prepare_schema(schema: object, limits: SchemaLimits, param: str) -> dict[str, Any]:
    """A copy of the schema without annotations.

    Raises InvalidRequestError, with a JSON pointer, for what cannot be enforced.
    """
    if not isinstance(schema, Mapping):
        raise InvalidRequestError("The schema must be a JSON object.", param)
    prepared = _Walk(schema, limits, param).schema(schema, ())
    assert isinstance(prepared, dict)
    return prepared


def children(schema: Schema) -> Iterator[tuple[Step, Schema]]:
    """The schemas directly below a prepared one, each with the way to it."""
    for keyword, value in schema.items() if isinstance(schema, dict) else ():
        if keyword in _OF_NAMES:
            yield from (((keyword, name), below) for name, below in value.items())
        elif keyword in _OF_LISTS or (keyword == "items" and isinstance(value, list)):
            yield from (((keyword, str(index)), below) for index, below in enumerate(value))
        elif keyword in _SINGLE:
            yield (keyword,), value


def refuse(place: Step, why: str, param: str) -> InvalidRequestError:
    """The error for one place of a schema."""
    pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in place)
    if len(pointer) > _MOST_POINTER:
        pointer = pointer[:_MOST_POINTER] + "..."
    at = f"at {pointer}" if pointer else "at its root"
    return InvalidRequestError(f"The schema cannot be enforced {at}: {why}.", param)


def _says_nothing(keyword: str, value: object) -> bool:
    """Whether a keyword may be left out of a schema."""
    if keyword in _ANNOTATIONS or keyword.startswith("x-") or keyword == "$schema":
        return True
    return keyword == "uniqueItems" and value is False


@dataclass
class _Walk:
    """One pass over a schema, counting as it goes."""

    root: Mapping[str, Any]
    limits: SchemaLimits
    param: str
    counts: dict[str, int] = field(default_factory=dict)
    multiple: int = 1

    def schema(self, node: object, place: Step) -> Schema:
        if isinstance(node, bool):
            return node
        if not isinstance(node, Mapping):
            raise refuse(place, "a schema must be an object, true or false", self.param)
        self._check_depth(place)
        out: dict[str, Any] = {}
        for keyword, value in node.items():
            here = (*place, keyword)
            if keyword in _OF_NAMES:
                out[keyword] = self._names(value, here)
            elif keyword in _OF_LISTS or (keyword == "items" and isinstance(value, list)):
                out[keyword] = self._list(value, here)
            elif keyword in _SINGLE:
                out[keyword] = self.schema(value, here)
            elif keyword in _VALUES:
                out[keyword] = self._value(keyword, value, here)
            elif keyword == "$schema" and str(value).startswith(_DRAFTS) and not place:
                out[keyword] = value
            elif not _says_nothing(keyword, value):
                raise refuse(here, "this keyword is not supported", self.param)
        self._check_least(out, place)
        return out

    def _names(self, value: object, here: Step) -> dict[str, Schema]:
        if not isinstance(value, Mapping):
            raise refuse(here, "it must be an object of schemas", self.param)
        self._count("properties", len(value), here)
        if here[-1] == "patternProperties":
            for name in value:
                self._check_pattern(name, (*here, name))
        return {name: self.schema(below, (*here, name)) for name, below in value.items()}

    def _list(self, value: object, here: Step) -> list[Schema]:
        if not isinstance(value, list):
            raise refuse(here, "it must be a list of schemas", self.param)
        self._count("options", len(value), here)
        return [self.schema(below, (*here, str(index))) for index, below in enumerate(value)]

    def _value(self, keyword: str, value: Any, here: Step) -> Any:
        if keyword == "enum" and isinstance(value, list):
            self._count("values", len(value), here)
        if keyword in ("enum", "const"):
            self._check_json(value, here)
        elif keyword == "pattern":
            self._check_pattern(value, here)
        elif keyword == "multipleOf":
            self._check_multiple(value, here)
        elif keyword == "$ref":
            self._check_reference(value, here)
        elif not isinstance(value, str | int | float | bool | list):
            raise refuse(here, "its value has the wrong type", self.param)
        elif isinstance(value, float) and not isfinite(value):
            raise refuse(here, "the number must be finite", self.param)
        elif isinstance(value, int) and abs(value) > 1 << 62:
            raise refuse(here, "the number is too large", self.param)
        elif isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise refuse(here, "it must be a list of strings", self.param)
        return value

    def _check_depth(self, place: Step) -> None:
        if len(place) > self.limits.depth:
            raise InvalidRequestError(
                f"The schema is nested more than {self.limits.depth} levels deep.", self.param
            )

    def _check_json(self, value: object, here: Step) -> None:
        """Bound the nesting of a constant."""
        self._check_depth(here)
        below: Any = ()
        if isinstance(value, Mapping):
            below = value.items()
        elif isinstance(value, list):
            below = enumerate(value)
        for part, item in below:
            self._check_json(item, (*here, str(part)))

    def _count(self, what: str, number: int, here: Step) -> None:
        self.counts[what] = self.counts.get(what, 0) + number
        most = getattr(self.limits, what)
        if self.counts[what] > most:
            raise refuse(here, f"the whole schema may have {most} {what}", self.param)

    def _check_pattern(self, value: object, here: Step) -> None:
        if not isinstance(value, str):
            raise refuse(here, "a pattern must be a string", self.param)
        if len(value) > self.limits.pattern:
            most = self.limits.pattern
            raise refuse(here, f"a pattern may have {most} characters", self.param)

    def _check_multiple(self, value: object, here: Step) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refuse(here, "it must be a number", self.param)
        if not isfinite(value) or value == 0:
            raise refuse(here, "it must be a finite number other than 0", self.param)
        digits = Decimal(repr(value)).as_tuple().digits
        self.multiple = lcm(self.multiple, int("".join(map(str, digits)).rstrip("0")))
        if self.multiple > self.limits.multiple:
            most = self.limits.multiple
            why = f"the common multiple of all multipleOf may be {most}, powers of ten aside"
            raise refuse(here, why, self.param)

    def _check_reference(self, value: object, here: Step) -> None:
        if not isinstance(value, str) or not (value == "#" or value.startswith("#/")):
            why = 'references must point into this schema, as in "#/$defs/name"'
            raise refuse(here, f"{why}; nothing is ever fetched", self.param)
        node: Any = self.root
        for part in value[2:].split("/") if len(value) > 2 else ():
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and part.isascii() and part.isdigit():
                node = node[int(part)] if int(part) < len(node) else None
            else:
                node = node.get(part) if isinstance(node, Mapping) else None
            if node is None:
                raise refuse(here, "the reference points to nothing", self.param)

    def _check_least(self, schema: dict[str, Any], place: Step) -> None:
        """Names outside `properties` may repeat, so a least number of them means nothing."""
        least, required = schema.get("minProperties", 0), schema.get("required", [])
        if isinstance(least, int) and isinstance(required, list) and least > len(required) + 1:
            why = "more than one name beyond the required ones cannot be asked for"
            raise refuse((*place, "minProperties"), why, self.param)
