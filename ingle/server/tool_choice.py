"""Which tools a request offers and whether the model must use them, checked alike in all dialects.

Tools are OpenAI-shaped mappings, `{"type": "function", "function": {"name", ...}}`; the other
dialects are translated into it. Nothing is ever run here: calls are handed to the client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ingle.errors import InvalidRequestError
from ingle.prompt.messages import read_tools

MAX_TOOLS = 512
MAX_STRICT_DEPTH = 64

# How DeepSeek's library writes a strict schema; other keywords, which it drops, follow.
_ORDER = (
    *("type", "properties", "items", "anyOf", "additionalProperties", "required", "description"),
    *("pattern", "format", "enum"),
)


@dataclass(frozen=True)
class ToolChoice:
    """mode "named" goes with the `name` of the one function that must be called."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str | None = None

    @property
    def forced(self) -> bool:
        """Whether the model has no choice but to call."""
        return self.mode in ("required", "named")


def check_tools(tools: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """The tools of a request, strict ones with a closed schema; InvalidRequestError names a bad
    one."""
    if not tools:
        return []
    if len(tools) > MAX_TOOLS:
        raise InvalidRequestError(f"tools takes {MAX_TOOLS} tools.", "tools")
    for index, tool in enumerate(read_tools(tools)):
        given = tool.source["function"].get("parameters")
        if given is not None and tool.parameters.get("type") != "object":
            where = f"tools[{index}].function.parameters"
            raise InvalidRequestError(
                f"Invalid schema for {where}: schema must be a JSON Schema of 'type: \"object\"'.",
                where,
            )
    return [_close(tool, index) if is_strict(tool) else tool for index, tool in enumerate(tools)]


def is_strict(tool: Mapping[str, Any]) -> bool:
    """Whether the arguments must follow the schema to the letter."""
    return bool(tool["function"].get("strict"))


def read_tool_choice(
    choice: str | dict[str, Any] | None, tools: list[dict[str, Any]]
) -> ToolChoice:
    """OpenAI's and DeepSeek's `tool_choice`; InvalidRequestError for what it cannot mean."""
    if choice is None or choice == "auto":
        return ToolChoice("auto")
    if choice == "none":
        return ToolChoice("none")
    if choice == "required":
        if not tools:
            raise InvalidRequestError("tool_choice needs tools.", "tool_choice")
        return ToolChoice("required")
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or choice.get("type", "function") != "function":  # type: ignore[union-attr]
        raise InvalidRequestError(
            "tool_choice must be none, auto, required or {'type': 'function', 'function': "
            "{'name': ...}}.",
            "tool_choice",
        )
    return named(name, tools)


def named(name: str, tools: list[dict[str, Any]]) -> ToolChoice:
    """The choice of one function; InvalidRequestError if the request does not offer it."""
    if not any(tool["function"]["name"] == name for tool in tools):
        raise InvalidRequestError(
            "Invalid value for 'tool_call': no such function was specified in the 'tools' "
            "parameter.",
            "tool_choice",
        )
    return ToolChoice("named", name)


def _close(tool: dict[str, Any], index: int) -> dict[str, Any]:
    """A strict tool whose objects require all they name and allow nothing else."""
    function = tool["function"]
    schema = function.get("parameters") or {"type": "object"}
    where = f"tools[{index}].function.parameters"
    return {**tool, "function": {**function, "parameters": close_schema(schema, where)}}


def close_schema(schema: Any, where: str, depth: int = 0) -> Any:
    """A schema with each object closed: `required` all its properties, no others.

    Raises InvalidRequestError, in the words of DeepSeek's library, where the schema says otherwise
    itself or has an object of which nothing is known.
    """
    if depth > MAX_STRICT_DEPTH:
        raise InvalidRequestError(
            f"A strict schema may be nested {MAX_STRICT_DEPTH} levels deep.", where
        )
    if isinstance(schema, list):
        return [close_schema(item, where, depth + 1) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = dict(_closed_items(schema, where, depth + 1))
    if depth == 0 and schema.get("type") == "object":
        closed.setdefault("properties", {})
    elif _is_object(schema) and not schema.get("properties"):
        raise InvalidRequestError("An object with no properties is not allowed.", where)
    properties = closed.get("properties")
    if isinstance(properties, dict):
        if closed.setdefault("additionalProperties", False) is not False:
            raise InvalidRequestError("additionalProperties should not be true", where)
        required = closed.get("required", list(properties))
        if not isinstance(required, list) or sorted(map(str, required)) != sorted(properties):
            raise InvalidRequestError(
                "Required properties must match all properties in the object", where
            )
        closed["required"] = list(properties)
    return {key: closed[key] for key in (*_ORDER, *closed) if key in closed}


def _is_object(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind)


def _closed_items(schema: dict[str, Any], where: str, depth: int) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items():
        if key in ("enum", "const", "default", "examples", "required"):  # data, not schemas
            yield key, value
        elif key in ("properties", "$defs", "definitions") and isinstance(value, dict):
            yield key, {name: close_schema(child, where, depth) for name, child in value.items()}
        else:
            yield key, close_schema(value, where, depth)
