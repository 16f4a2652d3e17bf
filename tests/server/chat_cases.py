"""Requests of Chat Completions that our server and DeepSeek's own library take or refuse alike."""

from __future__ import annotations

from typing import Any

from tests.prompt.conversations import EFFORTS
from tests.server.differential import Body

OFF, ON = {"type": "disabled"}, {"type": "enabled"}
JSON, TEXT = {"type": "json_object"}, {"type": "text"}
CLOSED = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}
OPEN = {"type": "object", "properties": {"a": {"type": "string"}}}
REGEX = {"type": "regex", "regex": "a+"}


def schema_format(schema: Any, **more: Any) -> Body:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **more}}


def tool(parameters: Any = CLOSED, name: str = "get", **more: Any) -> Body:
    function = {"name": name, "description": "d", "parameters": parameters, **more}
    return {"type": "function", "function": function}


def strict(properties: Body, **more: Any) -> list[Body]:
    return [tool({"type": "object", "properties": properties, **more}, strict=True)]


def named(name: str) -> Body:
    return {"type": "function", "function": {"name": name}}


def says(content: Any, role: str = "user", **more: Any) -> Body:
    return {"role": role, "content": content, **more}


def calls(*ids: str, **more: Any) -> Body:
    made = [
        {"id": i, "type": "function", "function": {"name": "get", "arguments": '{"a": 1}'}}
        for i in ids
    ]
    return {"role": "assistant", "content": "", "tool_calls": made, **more}


def result(call: str, content: Any = "R") -> Body:
    return {"role": "tool", "tool_call_id": call, "content": content}


USER = says("Say json.")

# Fields that both sides take, whatever the conversation.
TAKEN: dict[str, tuple[Any, ...]] = {
    "temperature": (0, 0.3, 1.0, 2, None),
    "top_p": (0.01, 1, None),
    "max_tokens": (1, 4096, None),
    "presence_penalty": (-2, 0.5, 2),
    "frequency_penalty": (-2, 0, 2),
    "stop": ("a", ["a", "b"], [], ["x"] * 16, None),
    "stream": (True, False, None),
    "seed": (0, 2**63 - 1),
    "n": (1, None),
    "logprobs": (True, False),
    "user": ("u",),
    "user_id": ("u",),
    "parallel_tool_calls": (True,),
    "tool_choice": ("auto", "none", None),
    "thinking": (ON, OFF, {"type": "adaptive"}),
    "reasoning_effort": ("none", *EFFORTS, None),
    "logit_bias": ({"5": 1},),
    "service_tier": ("auto",),
    "functions": ([],),
    "function_call": ("auto",),
    "modalities": (["text"],),
}
# Fields that both sides refuse; in the same words, or as a body that cannot be read.
REFUSED: list[Body] = [
    {"temperature": 2.1},
    {"temperature": -0.5},
    {"temperature": "1"},
    {"top_p": 0},
    {"top_p": 1.5},
    {"presence_penalty": 3},
    {"frequency_penalty": -2.5},
    {"max_tokens": 1.5},
    {"max_tokens": -1},
    {"seed": -1},
    {"seed": 2**63},
    {"stop": ""},
    {"stop": ["a", ""]},
    {"stop": ["a"] * 17},
    {"logprobs": None, "top_logprobs": 2},
    {"logprobs": False, "top_logprobs": 0},
    {"logprobs": True, "top_logprobs": 21},
    {"logprobs": True, "top_logprobs": -1},
    {"stream": "yes"},
    {"stream": None, "stream_options": {}},
    {"stream": False, "stream_options": {"include_usage": True}},
    {"thinking": {}},
    {"thinking": {"type": "hard"}},
    {"reasoning_effort": "weird"},
    {"reasoning_effort": 5},
    {"response_format": {"type": "xml"}},
    {"response_format": {}},
    {"response_format": {"type": "json_schema"}},
    {"response_format": {"type": "regex"}},
    {"response_format": JSON, "messages": [says("Hi")]},
    {"tools": [tool(), tool()]},
    {"tools": [tool(name="")]},
    {"tools": [tool(name="a b")]},
    {"tools": [{"type": "mcp"}]},
    {"tools": [{"type": "function"}]},
    {"tools": strict({"a": {"type": "string"}}, additionalProperties=True)},
    {"tools": strict({"a": {"type": "string"}}, required=[])},
    {"tools": strict({"a": {"type": "object"}})},
    {"tools": strict({"a": {"type": "array", "items": {"type": "object"}}})},
    {"tools": strict({"a": {"type": "string"}}), "response_format": JSON, "messages": [USER]},
    {"tools": [tool()], "tool_choice": "required", "thinking": ON},
    {"tools": [tool()], "tool_choice": named("get"), "thinking": ON},
    {"tools": [tool()], "tool_choice": "weird"},
    {"tools": [tool()], "tool_choice": {"type": "function"}},
    {"messages": []},
    {"messages": None},
    {"messages": [says("x", "foo")]},
    {"messages": [{"role": "user"}]},
    {"messages": [says(None)]},
    {"messages": [says([{"type": "text"}])]},
    {"messages": [says([{"type": "input_audio"}])]},
    {"messages": [USER, says(None, "assistant")]},
    {"messages": [USER, {"role": "assistant"}]},
    {"messages": [USER, says("x", "assistant", prefix=True), USER]},
    {"messages": [result("1")]},
    {"messages": [USER, result("1")]},
    {"messages": [USER, calls("1")]},
    {"messages": [USER, calls("1"), USER]},
    {"messages": [USER, calls("1"), USER, result("1")]},
    {"messages": [USER, calls("1", "2"), result("1")]},
    {"messages": [USER, calls("1"), {"role": "tool", "content": "R"}]},
    {"messages": [USER, calls("1"), result("1", None)]},
    {"messages": [USER, {**calls(), "tool_calls": [{"id": "1"}]}, result("1")]},
    {
        "response_format": JSON,
        "messages": [USER, says("json", "assistant", prefix=True)],
    },
]
# What both sides take, in the same prompt, that random conversations do not hold.
SAME: list[Body] = [
    {"response_format": JSON},
    {"response_format": JSON, "messages": [says("Json", "system"), says("Hi")]},
    {"response_format": JSON, "messages": [says("A"), says("JSON", "assistant"), says("B")]},
    {"response_format": TEXT, "tools": [tool()]},
    {"response_format": REGEX},
    {"response_format": schema_format(CLOSED, strict=True)},
    {"response_format": schema_format(OPEN, strict=True)},
    {"response_format": schema_format({"type": "array"})},
    {"response_format": JSON, "tools": [tool()], "tool_choice": "none"},
    {"tools": [], "tool_choice": "auto"},
    {"tools": None},
    {"tools": [tool(None)]},
    {"tools": [{"type": "function", "function": {"name": "a", "description": None}}]},
    {"tools": [tool(name="a" * 64), tool(OPEN, strict=None), tool({"type": "object"}, "b-C_2")]},
    {"tools": strict({})},
    {"tools": strict({"b": {"type": "string"}, "a": {"type": "integer"}}, required=["a", "b"])},
    {"tools": strict({"a": {"description": "d", "enum": ["x", "y"], "type": "string"}})},
    {"tools": strict({"a": {"type": "array", "items": {"type": "string"}}}, description="d")},
    {"tools": strict({"a": {"anyOf": [{"type": "null"}, {"type": "object", **OPEN}]}})},
    {"tools": [tool(strict=True)]},
    {"tools": [tool(name=f"f{index}") for index in range(130)]},
    {"messages": [says("x", "latest_reminder")]},
    {"messages": [says("x", "system")]},
    {"messages": [USER, says("y", name="n")]},
    {"messages": [says([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]},
    {"messages": [USER, calls("1", "2"), result("2", "two"), result("1", "one")]},
    {"messages": [USER, calls("1", content=None), result("1")], "tools": [tool()]},
    {"messages": [USER, says("x", "assistant", prefix=True)]},
    {"messages": [USER, says("", "assistant", prefix=True, reasoning_content="R")]},
    {"messages": [USER, says("x", "assistant", prefix=True, reasoning_content="R")]},
    {"messages": [USER, says("x", "assistant", prefix=True)], "thinking": OFF},
    {"thinking": ON, "reasoning_effort": "none"},
    {"thinking": OFF, "reasoning_effort": "max"},
]
