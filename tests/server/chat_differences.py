"""The one list of what our Chat Completions takes otherwise than DeepSeek's own library.

Every row is shown to differ still, so that none outlives its reason.
"""

from __future__ import annotations

from typing import Any

from tests.server.chat_cases import (
    CLOSED,
    JSON,
    OFF,
    REGEX,
    USER,
    calls,
    named,
    result,
    says,
    schema_format,
    strict,
    tool,
)
from tests.server.differential import Body, Difference


def message(**fields: Any) -> Body:
    return {"messages": [{**USER, **fields}]}


def options(fields: Body) -> Body:
    return {"stream": True, "stream_options": fields}


def limit(tokens: int) -> Body:
    return {"max_tokens": tokens}


def prefix(content: str | None, reasoning: str | None = None, **fields: Any) -> Body:
    last = says(content, "assistant", prefix=True, reasoning_content=reasoning)
    return {"messages": [USER, last], **fields}


def untyped_call() -> Body:
    made = calls("1")
    del made["tool_calls"][0]["type"]
    return {"messages": [USER, made, result("1")]}


def long_number() -> Body:
    made = calls("1")
    made["tool_calls"][0]["function"]["arguments"] = '{"a": 36893488147419103232}'
    return made


DIFFERENCES: list[Difference] = [
    Difference(
        "unknown fields are refused by name; the library ignores them",
        "refuses",
        "takes",
        lambda: {"bogus": 1},
    ),
    Difference("so are unknown fields of a message", "refuses", "takes", lambda: message(bogus=1)),
    Difference("and of stream_options", "refuses", "takes", lambda: options({"bogus": 1})),
    Difference(
        "what needs something not here is refused; the library ignores it",
        "refuses",
        "takes",
        lambda: {"store": True, "metadata": {"a": "b"}},
    ),
    Difference(
        "the old `functions` are refused; the library ignores them",
        "refuses",
        "takes",
        lambda: {"functions": [{"name": "f"}]},
    ),
    Difference("a user separates caches, so it is a text", "refuses", "takes", lambda: {"user": 5}),
    Difference("n up to 8 is honoured", "takes", "refuses", lambda: {"n": 3}),
    Difference("n beyond 8 names our limit", "refuses", "refuses", lambda: {"n": 9}),
    Difference(
        "the context is the only limit of an answer", "takes", "refuses", lambda: limit(393_217)
    ),
    Difference("so max_tokens of 0 names no other", "refuses", "refuses", lambda: limit(0)),
    Difference(
        "max_completion_tokens is honoured, so 0 is refused; the library ignores it",
        "refuses",
        "takes",
        lambda: {"max_completion_tokens": 0},
    ),
    Difference(
        "two limits that differ are refused",
        "refuses",
        "takes",
        lambda: {"max_tokens": 5, "max_completion_tokens": 6},
    ),
    Difference(
        "stop strings have a greatest length", "refuses", "takes", lambda: {"stop": "x" * 2000}
    ),
    Difference(
        "names from a request are never quoted",
        "refuses",
        "refuses",
        lambda: {"tools": [tool()], "tool_choice": named("zz"), "thinking": OFF},
    ),
    Difference(
        "the call that tool_choice demands is begun by a grammar, not by the prompt",
        "takes",
        "takes",
        lambda: {"tools": [tool()], "tool_choice": "required", "thinking": OFF},
    ),
    Difference(
        "a demand to call needs tools; the library ignores it",
        "refuses",
        "takes",
        lambda: {"tool_choice": "required", "thinking": OFF},
    ),
    Difference(
        "the only type there is may be left out: of a tool",
        "takes",
        "refuses",
        lambda: {"tools": [{"function": {"name": "f"}}]},
    ),
    Difference("and of a call", "takes", "refuses", lambda: untyped_call()),
    Difference(
        "a format is enforced, so it cannot go with tools that may be called; the library "
        "enforces neither unless a tool is strict",
        "refuses",
        "takes",
        lambda: {"tools": [tool()], "response_format": JSON},
    ),
    Difference(
        "a format binds the whole answer, so it cannot go with one begun by the client",
        "refuses",
        "takes",
        lambda: prefix("x", response_format=REGEX),
    ),
    Difference(
        "tools go with an answer begun by the client",
        "takes",
        "refuses",
        lambda: prefix("x", tools=[tool()]),
    ),
    Difference(
        "a begun thought needs no content", "takes", "refuses", lambda: prefix(None, reasoning="R")
    ),
    Difference(
        "`prefix` of a user is refused; the library ignores it",
        "refuses",
        "takes",
        lambda: {"messages": [says("x", prefix=True)]},
    ),
    Difference(
        "a closed answer at the end is refused; the library opens a second turn",
        "refuses",
        "takes",
        lambda: {"messages": [USER, says("x", "assistant")]},
    ),
    Difference(
        "developer is system, as OpenAI's clients mean it",
        "takes",
        "refuses",
        lambda: {"messages": [says("x", "developer"), USER]},
    ),
    Difference(
        "an empty list of calls is none",
        "takes",
        "refuses",
        lambda: {"messages": [USER, calls(), USER]},
    ),
    Difference(
        "ids of calls are never quoted",
        "refuses",
        "refuses",
        lambda: {"messages": [USER, calls("1"), result("2")]},
    ),
    Difference(
        "a second result is refused as such",
        "refuses",
        "refuses",
        lambda: {"messages": [USER, calls("1"), result("1"), result("1")]},
    ),
    Difference(
        "images are refused; the library puts a placeholder into the prompt",
        "refuses",
        "takes",
        lambda: {"messages": [says([{"type": "image_url", "image_url": {"url": "http://x"}}])]},
    ),
    Difference(
        "parameters that are no object: the name of the function is not quoted",
        "refuses",
        "refuses",
        lambda: {"tools": [tool({"type": "string"})]},
    ),
    Difference(
        "schemas that bind nothing are only shown, not checked",
        "takes",
        "refuses",
        lambda: {"tools": [tool({"type": "object", "properties": {"a": {"type": "odd"}}})]},
    ),
    Difference(
        "keywords of a strict schema are kept; the library drops those it does not know",
        "takes",
        "takes",
        lambda: {"tools": strict({"a": {"type": "string", "minLength": 1}})},
    ),
    Difference(
        "even $defs, without which its references point nowhere",
        "takes",
        "takes",
        lambda: {"tools": strict({"a": {"$ref": "#/$defs/d"}}, **{"$defs": {"d": CLOSED}})},
    ),
    Difference(
        "whatever the grammar engine can bind may be strict",
        "takes",
        "refuses",
        lambda: {"tools": strict({"a": {"enum": ["x", 1]}})},
    ),
    Difference(
        "a strict answer may be other than an object",
        "takes",
        "refuses",
        lambda: {"response_format": schema_format({"type": "string"}, strict=True)},
    ),
    Difference(
        "numbers are written as Python does",
        "takes",
        "takes",
        lambda: {"messages": [USER, long_number(), result("1")]},
    ),
]
