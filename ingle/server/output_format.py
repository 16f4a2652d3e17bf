"""How a request asks for structured output, in every spelling, brought to one form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ingle.errors import InvalidRequestError
from ingle.prompt.encoder import JSON_OBJECT
from ingle.server.tool_choice import close_schema

FormatKind = Literal["json_object", "json_schema", "regex", "choice", "lark"]


@dataclass(frozen=True)
class OutputFormat:
    """What the answer, not the thought before it, must match.

    source: the schema as a mapping, the regex or grammar as text, the choices as a list, None for
    json_object. param: the request's field, for errors. strict: whether objects of the schema are
    closed for the answer; the prompt shows the schema as it was given.
    """

    kind: FormatKind
    source: Any
    param: str = "response_format"
    strict: bool = False

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The JSON schema, which some generations read in their prompt."""
        if self.kind == "json_object":
            return JSON_OBJECT
        return self.source if self.kind == "json_schema" else None

    @property
    def bound(self) -> Any:
        """What the grammar is made of."""
        return close_schema(self.source, self.param) if self.strict else self.source

    @classmethod
    def from_response_format(cls, value: dict[str, Any] | None) -> OutputFormat | None:
        """OpenAI's and DeepSeek's `response_format`; None for text."""
        kind = None if value is None else value.get("type")
        if value is None or kind == "text":
            return None
        if kind == "json_object":
            return cls("json_object", None)
        if kind == "regex":
            return cls("regex", _text(value.get("regex"), "response_format.regex"))
        if kind == "json_schema":
            described = value.get("json_schema")
            schema = described.get("schema") if isinstance(described, dict) else None
            strict = isinstance(described, dict) and described.get("strict") is True
            param = "response_format.json_schema.schema"
            return cls("json_schema", _schema(schema, param), param, strict)
        raise InvalidRequestError(
            "response_format.type must be text, json_object, json_schema or regex.",
            "response_format.type",
        )

    @classmethod
    def from_structured_outputs(cls, value: Mapping[str, Any]) -> OutputFormat | None:
        """vLLM's `structured_outputs`: one of json, regex, choice and grammar."""
        given = [name for name, inner in value.items() if inner is not None]
        if not given:
            return None
        if len(given) > 1:
            raise InvalidRequestError(
                "structured_outputs takes one of json, regex, choice and grammar.",
                "structured_outputs",
            )
        name = given[0]
        source, param = value[name], f"structured_outputs.{name}"
        if name == "json":
            return cls("json_schema", _schema(source, param), param)
        if name == "grammar":
            return cls("lark", source, param)
        if name == "choice" and not source:
            raise InvalidRequestError("structured_outputs.choice must not be empty.", param)
        return cls("regex" if name == "regex" else "choice", source, param)


def says_json(messages: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a conversation speaks of JSON at all, without which a model bound to it goes astray;
    each dialect has its own words for the refusal."""
    return any("json" in (message["content"] or "").lower() for message in messages)


def _text(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequestError(f"{param} must be a string.", param)
    return value


def _schema(value: Any, param: str) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InvalidRequestError(f"{param} must be a JSON schema.", param) from None
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{param} must be a JSON schema, an object.", param)
    return value
