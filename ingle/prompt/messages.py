"""Checked messages and tools, the same for every generation.

Messages are OpenAI-shaped mappings: `role` (system, developer, user, assistant, tool; in formats
that have it latest_reminder), `content` (a string, a list of text parts, or null beside
tool_calls), and where they apply `reasoning_content` (or `reasoning`), `tool_calls`,
`tool_call_id` and `prefix`. Other keys have no effect on a prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingle.errors import InvalidRequestError

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class ToolCall:
    """A call the model made: `arguments` is the JSON text, verbatim."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """A checked message; `role` is system, user, assistant, tool or latest_reminder."""

    index: int
    """Its place in the request."""
    role: str
    content: str
    calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    reasoning: str | None = None
    """What the client itself keeps apart from the content; None where it does not."""
    prefix: bool = False
    """Whether the model is to go on with this message, which is the last and the assistant's."""


@dataclass(frozen=True)
class Tool:
    """A function the model may call; `source` is the mapping as it was given."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    source: Mapping[str, Any]


def read_messages(
    messages: Sequence[Mapping[str, Any]], *, reminders: bool = False, joint: str = ""
) -> list[Message]:
    """Check a conversation; tool results come back in the order of their calls.

    developer counts as system. reminders: whether the format has the role latest_reminder.
    joint: what the format puts between the parts of one content. Raises InvalidRequestError,
    naming the field, for an empty list, a malformed message, a final assistant turn without
    `prefix` and a `prefix` anywhere else, and calls and results that do not match.
    """
    if not messages:
        raise InvalidRequestError("Empty input messages", "messages")
    roles = (*ROLES, *(["latest_reminder"] if reminders else []))
    read = [_message(message, index, roles, joint) for index, message in enumerate(messages)]
    for message in read:
        if message.prefix and (message.role != "assistant" or message is not read[-1]):
            raise InvalidRequestError(
                "Invalid completion message: prefix set true with message which is not final "
                "message or message role is not assistant",
                f"messages[{message.index}].prefix",
            )
    if read[-1].role == "assistant" and not read[-1].calls and not read[-1].prefix:
        raise InvalidRequestError(
            "The last message must not be the assistant's, unless it has prefix: true, which "
            "continues it.",
            f"messages[{len(read) - 1}]",
        )
    ordered: list[Message] = []
    while len(ordered) < len(read):
        start = len(ordered)
        message = read[start]
        if message.role == "tool":
            raise InvalidRequestError(
                "Messages with role 'tool' must be a response to a preceding message with "
                "'tool_calls'",
                f"messages[{start}]",
            )
        ordered.append(message)
        if message.calls:
            ordered += _results(message.calls, read, start)
    return ordered


def _results(calls: tuple[ToolCall, ...], read: list[Message], start: int) -> list[Message]:
    """The tool messages after the one at `start`, sorted like the calls they answer."""
    results: dict[str, Message] = {}
    known = {call.id for call in calls}
    for index in range(start + 1, len(read)):
        message = read[index]
        if message.role != "tool":
            break
        if message.tool_call_id not in known or message.tool_call_id in results:
            raise InvalidRequestError(
                "tool_call_id must be the id of a call of the assistant message before it, and "
                "each call is answered once.",
                f"messages[{index}].tool_call_id",
            )
        results[message.tool_call_id] = message
    if len(results) < len(calls):
        raise InvalidRequestError(
            "An assistant message with 'tool_calls' must be followed by tool messages responding "
            "to each 'tool_call_id'. (insufficient tool messages following tool_calls message)",
            f"messages[{start}].tool_calls",
        )
    return [results[call.id] for call in calls]


def read_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[Tool]:
    """Check the tools of a request; InvalidRequestError, naming the field, for a malformed one."""
    read = []
    for index, tool in enumerate(tools or ()):
        param = f"tools[{index}]"
        function = _mapping(tool, param).get("function")
        if tool.get("type", "function") != "function":
            raise InvalidRequestError("Only tools of type 'function' are known.", f"{param}.type")
        function = _mapping(function, f"{param}.function")
        parameters = _mapping(function.get("parameters") or {}, f"{param}.function.parameters")
        name = _tool_name(function.get("name"), f"{param}.function.name")
        given = function.get("description")
        description = _text("" if given is None else given, f"{param}.function.description")
        read.append(Tool(name, description, parameters, tool))
    if len({tool.name for tool in read}) < len(read):
        raise InvalidRequestError("Tool names must be unique.", "tools")
    return read


def refuse_tools(
    messages: Sequence[Message], tools: Sequence[Tool], reason: str = "This model's prompt format"
) -> None:
    """Raise InvalidRequestError where a request uses tools that the format cannot express."""
    if tools:
        raise InvalidRequestError(f"{reason} has no tools; leave tools out.", "tools")
    if any(message.calls for message in messages):
        raise InvalidRequestError(f"{reason} has no tool calls.", "messages")


def to_json(value: Any, param: str) -> str:
    """JSON as the templates write it; InvalidRequestError for what JSON cannot hold."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{param} must be JSON.", param) from error


def _message(message: Mapping[str, Any], index: int, roles: Sequence[str], joint: str) -> Message:
    param = f"messages[{index}]"
    role = _mapping(message, param).get("role")
    if role == "developer":
        role = "system"
    if role not in roles:
        raise InvalidRequestError(
            f"A message's role must be developer, {', '.join(roles[:-1])} or {roles[-1]}.",
            f"{param}.role",
        )
    prefix = message.get("prefix")
    if not isinstance(prefix, bool | None):
        raise InvalidRequestError(f"{param}.prefix must be true or false.", f"{param}.prefix")
    calls: tuple[ToolCall, ...] = ()
    content, reasoning, answers = message.get("content"), None, ""
    if role == "assistant":
        calls = _calls(message.get("tool_calls"), f"{param}.tool_calls")
        reasoning = _reasoning(message, param)
        if content is None and not calls and not (prefix and reasoning is not None):
            raise InvalidRequestError(
                "Invalid assistant message: content or tool_calls must be set", f"{param}.content"
            )
        content = "" if content is None else content
    elif role == "tool":
        answers = _text(message.get("tool_call_id"), f"{param}.tool_call_id")
    text = _content(content, f"{param}.content", joint)
    return Message(index, str(role), text, calls, answers, reasoning, bool(prefix))


def _reasoning(message: Mapping[str, Any], param: str) -> str | None:
    """The thought, in either spelling: DeepSeek's first, then that of other servers."""
    for key in ("reasoning_content", "reasoning"):
        if message.get(key) is not None:
            return _text(message[key], f"{param}.{key}")
    return None


def _calls(calls: Any, param: str) -> tuple[ToolCall, ...]:
    if calls is None:
        return ()
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise InvalidRequestError(f"{param} must be a list.", param)
    read = []
    for index, call in enumerate(calls):
        where = f"{param}[{index}]"
        function = _mapping(_mapping(call, where).get("function"), f"{where}.function")
        arguments = function.get("arguments")
        if isinstance(arguments, Mapping):
            arguments = to_json(arguments, f"{where}.function.arguments")
        read.append(
            ToolCall(
                _text(call.get("id"), f"{where}.id"),
                _text(function.get("name"), f"{where}.function.name"),
                _text(arguments, f"{where}.function.arguments"),
            )
        )
    if len({call.id for call in read}) < len(read):
        raise InvalidRequestError("Each tool call needs an id of its own.", param)
    return tuple(read)


def _content(content: Any, param: str, joint: str) -> str:
    if not isinstance(content, Sequence) or isinstance(content, str):
        return _text(content, param)
    texts = []
    for index, part in enumerate(content):
        if _mapping(part, f"{param}[{index}]").get("type") != "text":
            raise InvalidRequestError(
                "This model reads text only: a content part must have type 'text'.",
                f"{param}[{index}].type",
            )
        texts.append(_text(part.get("text"), f"{param}[{index}].text"))
    return joint.join(texts)


def _tool_name(name: Any, param: str) -> str:
    if _text(name, param) == "":
        raise InvalidRequestError(
            f"Invalid '{param}': empty string. Expected a string with minimum length 1, but got "
            "an empty string instead.",
            param,
        )
    if not re.fullmatch("[a-zA-Z0-9_-]+", name):
        raise InvalidRequestError(
            f"Invalid '{param}': string does not match pattern. Expected a string that matches "
            "the pattern '^[a-zA-Z0-9_-]+$'.",
            param,
        )
    return str(name)


def _text(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequestError(f"{param} must be a string.", param)
    return value


def _mapping(value: Any, param: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRequestError(f"{param} must be an object.", param)
    return value
