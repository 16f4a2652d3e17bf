"""JSON schemas for the tests of structured output: written by hand, and drawn from a seed."""

from __future__ import annotations

import random
from typing import Any

Schema = dict[str, Any]

PERSON: Schema = {
    "title": "Person",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12, "description": "in full"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
TREE: Schema = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "left": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]},
            },
            "required": ["value"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
BY_HAND: list[Schema] = [
    {"type": "null"},
    {"type": "boolean"},
    {"type": "integer"},
    {"type": "number"},
    {"type": "string", "maxLength": 5},
    {"type": "array", "maxItems": 3},
    {"type": "object"},
    {"type": ["string", "null"], "maxLength": 3},
    {"const": {"a": [1, "zwei", None, True]}},
    {"enum": ["", "é", 'quote " and \\ slash', 7, 2.5, None, False, [], {}]},
    {"type": "integer", "minimum": -3, "maximum": 12},
    {"type": "integer", "exclusiveMinimum": 99, "exclusiveMaximum": 1001},
    {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 1000},
    {"type": "integer", "multipleOf": 250, "minimum": 0},
    {"type": "number", "minimum": -1.5, "maximum": 1.5},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.25},
    {"type": "string", "pattern": "^[a-z]{2,4}-[0-9]{3}$"},
    {"type": "string", "pattern": "^(foo|bar)+$", "maxLength": 9},
    {"type": "string", "pattern": "x", "maxLength": 4},
    {"type": "string", "minLength": 3, "maxLength": 3},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "time"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "ipv6"},
    {"type": "string", "format": "uuid"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4},
    {"type": "array", "prefixItems": [{"type": "null"}, {"const": 1}], "items": False},
    {"type": "array", "prefixItems": [{"type": "boolean"}], "items": {"enum": [1]}, "maxItems": 4},
    {"type": "array", "items": {"type": "array", "items": {"type": "null"}, "maxItems": 2}},
    {"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2},
    {"type": "object", "minProperties": 1, "additionalProperties": {"enum": [0]}},
    {"type": "object", "patternProperties": {"^n_[a-z]$": {"type": "null"}},
     "additionalProperties": False},
    {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": False},
    {"type": "object", "properties": {"a b/c~\"": {"const": 1}}, "required": ['a b/c~"']},
    {"type": "object", "required": ["undeclared"], "additionalProperties": {"type": "integer"}},
    {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 2}, {"type": "null"}]},
    {"oneOf": [{"type": "integer"}, {"type": "boolean"}]},
    {"oneOf": [
        {"type": "object", "properties": {"kind": {"const": kind}, "size": {"type": "integer"}},
         "required": ["kind", "size"], "additionalProperties": False} for kind in ("a", "b")]},
    {"allOf": [{"type": "integer", "minimum": 5}, {"maximum": 9}]},
    {"allOf": [
        {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]},
        {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}]},
    {"type": "array", "uniqueItems": False, "items": {"type": "null"}, "maxItems": 2},
    {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "boolean"},
    {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array",
     "items": [{"type": "null"}, {"type": "boolean"}], "additionalItems": False},
    {"definitions": {"id": {"type": "integer", "minimum": 1}}, "type": "object",
     "properties": {"id": {"$ref": "#/definitions/id"}}, "required": ["id"]},
    {"type": "object", "properties": {"me": {"$ref": "#"}}, "additionalProperties": False},
    {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
    {"title": "t", "x-order": 3, "deprecated": True, "type": "string", "maxLength": 1,
     "default": "a", "examples": ["b"], "readOnly": True, "$comment": "c"},
    PERSON,
    TREE,
]  # fmt: skip


def random_schema(seed: int) -> Schema:
    """A schema that llguidance can enforce, of up to four levels."""
    return _any(random.Random(seed), 3)


def _any(rng: random.Random, depth: int) -> Schema:
    kinds = [_integer, _number, _string, _enum, _constant]
    if depth > 0:
        kinds += [_object, _object, _object, _array, _choice]
    return rng.choice(kinds)(rng, depth)


def _integer(rng: random.Random, depth: int) -> Schema:
    low = rng.randint(-2000, 2000)
    schema: Schema = {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 5000)}
    if rng.random() < 0.2:
        step = rng.choice([2, 3, 5, 10])
        schema = {"type": "integer", "minimum": 0, "maximum": step * 40, "multipleOf": step}
    return schema


def _number(rng: random.Random, depth: int) -> Schema:
    low = round(rng.uniform(-100, 100), rng.randint(0, 2))
    key = rng.choice(["minimum", "exclusiveMinimum"])
    return {"type": "number", key: low, "maximum": round(low + rng.uniform(0.5, 50), 2)}


def _string(rng: random.Random, depth: int) -> Schema:
    if rng.random() < 0.4:
        classes = ["[a-f]", "[0-9]", "(ab|cd)", "[A-Z_]", "\\d", "é"]
        parts = (rng.choice(classes) + rng.choice(["", "?", "+", "{1,3}"]) for _ in range(3))
        return {"type": "string", "pattern": f"^{''.join(parts)}$", "maxLength": 24}
    least = rng.randint(0, 3)
    return {"type": "string", "minLength": least, "maxLength": least + rng.randint(0, 6)}


def _enum(rng: random.Random, depth: int) -> Schema:
    values = ["north", "süd", 1, -7, 2.5, True, None, "", [1, 2], {"k": "v"}]
    return {"enum": rng.sample(values, rng.randint(1, 5))}


def _constant(rng: random.Random, depth: int) -> Schema:
    return rng.choice([{"type": "boolean"}, {"type": "null"}, {"const": "fixed"}])


def _object(rng: random.Random, depth: int) -> Schema:
    names = rng.sample(["id", "name", "ümlaut", "a-b", "x.y", "long property", "n0"], 4)
    properties = {name: _any(rng, depth - 1) for name in names[: rng.randint(1, 4)]}
    schema: Schema = {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if rng.random() < 0.6],
        "additionalProperties": rng.choice([False, False, {"type": "null"}]),
    }
    if rng.random() < 0.3:
        schema["$defs"] = {"unused": {"type": "null"}}
    return schema


def _array(rng: random.Random, depth: int) -> Schema:
    least = rng.randint(0, 2)
    items = _any(rng, depth - 1)
    return {
        "type": "array",
        "items": items,
        "minItems": least,
        "maxItems": least + rng.randint(0, 2),
    }


def _choice(rng: random.Random, depth: int) -> Schema:
    return {"anyOf": [_any(rng, depth - 1) for _ in range(rng.randint(2, 3))]}
