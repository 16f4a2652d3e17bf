"""DSML, the mark-up in which V3.2, V4 and V4.1 describe tools and write calls.

    \n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="NAME">\n
    <｜DSML｜parameter name="KEY" string="true">VALUE</｜DSML｜parameter>\n...
    </｜DSML｜invoke>\n</｜DSML｜tool_calls>

(its line breaks are for reading, except where \\n is written). A value that is a string stands as
it is with string="true", anything else as JSON with string="false". The tag names differ between
the generations. `｜DSML｜` is a special token where the vocabulary has it and else, in V3.2, text;
names, keys and values are always text. Arguments that are no JSON object are written whole, as
a string parameter `arguments`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingle.prompt.encoder import DSML, END_THINK, THINK, TOOLS_START, Prompt
from ingle.prompt.messages import Tool, ToolCall, to_json


@dataclass(frozen=True)
class Tags:
    """The tag names of one generation."""

    calls: str
    invoke: str
    parameter: str
    without_parameters: str
    """What stands between the tags of a call without arguments, behind the newline."""
    plain: bool = False
    """Whether `｜DSML｜` is text in a vocabulary that has no such token."""


V32_TAGS = Tags("function_calls", "invoke", "parameter", "\n", plain=True)
V4_TAGS = Tags("tool_calls", "invoke", "parameter", "")
V41_TAGS = Tags(" calls", " invoke", " parameter", "\n")

# The text of V4 and V4.1, up to the schemas and behind them.
_TOOLS = """\
## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by \
writing a "<｜DSML｜{calls}>" block like the following:

<｜DSML｜{calls}>
<｜DSML｜{invoke} name="$TOOL_NAME">
<｜DSML｜{parameter} name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE\
</｜DSML｜{parameter}>
...
</｜DSML｜{invoke}>
<｜DSML｜{invoke} name="$TOOL_NAME2">
...
</｜DSML｜{invoke}>
</｜DSML｜{calls}>

String parameters should be specified as is and set `string="true"`. For all other types \
(numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside \
<think>...</think> BEFORE any tool calls or final response.

Otherwise, output directly after </think> with tool calls or final response.

### Available Tool Schemas

"""
_TOOLS_END = """

You MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.
"""
_RESPONSE = (
    "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n"
)


def tools_text(tags: Tags) -> str:
    """How V4 and V4.1 introduce the schemas of the tools."""
    return _TOOLS.format(calls=tags.calls, invoke=tags.invoke, parameter=tags.parameter)


def describe_tools(prompt: Prompt, tools: list[Tool], tags: Tags) -> None:
    """The tools of a request, behind the system text, as V4 and V4.1 write them."""
    if not tools:
        return
    prompt.mark(TOOLS_START)
    prompt.text("\n\n")
    add_format_text(prompt, tools_text(tags), tags)
    for index, tool in enumerate(tools):
        function = {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
        }
        prompt.text("\n" if index else "")
        prompt.text(to_json(function, f"tools[{index}].function.parameters"))
    prompt.text(_TOOLS_END)


def describe_response(prompt: Prompt, schema: Mapping[str, Any] | None) -> None:
    """The schema an answer has to keep to, behind system text and tools."""
    if schema is not None:
        prompt.text(_RESPONSE + to_json(schema, "response_format"))


def add_calls(prompt: Prompt, calls: tuple[ToolCall, ...], tags: Tags) -> None:
    """The calls of one turn, behind its content."""
    if not calls:
        return
    prompt.text("\n\n")
    _open(prompt, tags, tags.calls, "\n")
    for call in calls:
        _open(prompt, tags, f'{tags.invoke} name="{call.name}"', "\n")
        arguments = _arguments(call.arguments)
        for key, value in arguments.items():
            if isinstance(value, str):
                _open(prompt, tags, f'{tags.parameter} name="{key}" string="true"', value)
            else:
                text = to_json(value, "messages")
                _open(prompt, tags, f'{tags.parameter} name="{key}" string="false"', text)
            _close(prompt, tags, tags.parameter, "\n")
        prompt.text("" if arguments else tags.without_parameters)
        _close(prompt, tags, tags.invoke, "\n")
    _close(prompt, tags, tags.calls, "")


def add_format_text(prompt: Prompt, text: str, tags: Tags) -> None:
    """Text of the format itself, in which names of special tokens are the tokens.

    Never give it text from a request.
    """
    for piece in re.split(f"({DSML}|{THINK}|{END_THINK})", text):
        if piece == DSML:
            _add_dsml(prompt, tags)
        elif piece in (THINK, END_THINK):
            prompt.special(piece)
        else:
            prompt.text(piece)


def _open(prompt: Prompt, tags: Tags, tag: str, inside: str) -> None:
    prompt.text("<")
    _add_dsml(prompt, tags)
    prompt.text(f"{tag}>{inside}")


def _close(prompt: Prompt, tags: Tags, tag: str, behind: str) -> None:
    prompt.text("</")
    _add_dsml(prompt, tags)
    prompt.text(f"{tag}>{behind}")


def _add_dsml(prompt: Prompt, tags: Tags) -> None:
    if tags.plain and prompt.tokenizer.find_special(DSML) is None:
        prompt.text(DSML)
    else:
        prompt.special(DSML)


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text, parse_constant=_refuse)
        json.dumps(arguments)  # what is nested too deeply to be written is taken as text, too
    except (ValueError, RecursionError):
        arguments = None
    return arguments if isinstance(arguments, dict) else {"arguments": text}


def _refuse(name: str) -> None:
    """NaN and Infinity, which Python would read, are no JSON."""
    raise ValueError(name)
