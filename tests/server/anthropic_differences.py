"""The one list of what our Messages takes otherwise than DeepSeek's own library.

Every row is shown to differ still, so that none outlives its reason.
"""

from __future__ import annotations

from typing import Any

from tests.server.anthropic_cases import (
    OBJECT,
    OFF,
    ON,
    TEXT_SOURCE,
    TOOLS,
    USER,
    answers,
    result,
    text,
    thought,
    tool,
    use,
    user,
)
from tests.server.differential import Body, Difference


def choose(kind: str, name: str | None = None, **fields: Any) -> Body:
    return {"tool_choice": {"type": kind} | ({"name": name} if name else {}), **fields}


def called(*blocks: Body) -> Body:
    return {"messages": [USER, answers(*blocks), user(result())]}


def ended(*blocks: Body, **fields: Any) -> Body:
    return {"messages": [USER, answers(*blocks)], **fields}


def limit(tokens: int) -> Body:
    return {"max_tokens": tokens}


DIFFERENCES: list[Difference] = [
    Difference("unknown fields are refused by name", "refuses", "takes", lambda: {"bogus": 1}),
    Difference(
        "also those of other APIs: context editing is not here",
        "refuses",
        "takes",
        lambda: {"context_management": {}},
    ),
    Difference("of a tool, too", "refuses", "takes", lambda: {"tools": [tool(bogus=1)]}),
    Difference("and of metadata", "refuses", "takes", lambda: {"metadata": {"bogus": "x"}}),
    Difference("unknown tiers are refused", "refuses", "takes", lambda: {"service_tier": "x"}),
    Difference("top_k has a range", "refuses", "takes", lambda: {"top_k": -1}),
    Difference(
        "the context is the only limit of an answer", "refuses", "refuses", lambda: limit(0)
    ),
    Difference(
        "stop_sequences are called by their name; the library says stop",
        "refuses",
        "refuses",
        lambda: {"stop_sequences": [""]},
    ),
    Difference(
        "names from a request are never quoted",
        "refuses",
        "refuses",
        lambda: choose("tool", "zz", tools=TOOLS, thinking=OFF),
    ),
    Difference(
        "nor are ids of calls", "refuses", "refuses", lambda: {"messages": [user(result())]}
    ),
    Difference(
        "the call that tool_choice demands is begun by a grammar, not by the prompt",
        "takes",
        "takes",
        lambda: choose("tool", "get", tools=TOOLS, thinking=OFF),
    ),
    Difference(
        "a demand to call needs tools; the library ignores it",
        "refuses",
        "takes",
        lambda: choose("any"),
    ),
    Difference("also for one by name", "refuses", "takes", lambda: choose("tool", "g")),
    Difference(
        "an assistant's message at the end is continued, as Anthropic's own interface has it; the "
        "library closes it and opens another",
        "takes",
        "takes",
        lambda: ended(text("p"), thinking=OFF),
    ),
    Difference("with its thought", "takes", "takes", lambda: ended(thought("T"), text("p"))),
    Difference("and inside of it", "takes", "takes", lambda: ended(thought("T"), thinking=ON)),
    Difference(
        "custom is the type of a plain tool",
        "takes",
        "refuses",
        lambda: {"tools": [tool(type="custom")]},
    ),
    Difference(
        "a strict tool's schema is closed, as in Chat Completions",
        "takes",
        "takes",
        lambda: {"tools": [tool(strict=True)]},
    ),
    Difference(
        "parameters that are no object: the name of the function is not quoted",
        "refuses",
        "refuses",
        lambda: {"tools": [tool({"type": "string"})]},
    ),
    Difference(
        "a missing schema is called so",
        "refuses",
        "refuses",
        lambda: {"tools": [{"name": "g"}]},
    ),
    Difference(
        "schemas that bind nothing are only shown, not checked",
        "takes",
        "refuses",
        lambda: {"tools": [tool({"type": "object", "properties": {"a": {"type": "odd"}}})]},
    ),
    Difference(
        "a format is shown and enforced; the library ignores it",
        "takes",
        "takes",
        lambda: {"output_config": {"format": {"type": "json_schema", "schema": OBJECT}}},
    ),
    Difference(
        "thoughts that came encrypted are dropped",
        "takes",
        "refuses",
        lambda: {"messages": [USER, answers({"type": "redacted_thinking", "data": "z"}), USER]},
    ),
    Difference(
        "documents are refused; the library puts a placeholder into the prompt",
        "refuses",
        "takes",
        lambda: {"messages": [user({"type": "document", "source": TEXT_SOURCE})]},
    ),
    Difference(
        "arguments are an object, as Anthropic has it",
        "refuses",
        "takes",
        lambda: called(use(arguments="str")),
    ),
    Difference("not a list", "refuses", "takes", lambda: called(use(arguments=[1]))),
    Difference(
        "numbers are written as Python does",
        "takes",
        "takes",
        lambda: called(use(arguments={"big": 2**70})),
    ),
    Difference(
        "no type is the plain type", "takes", "refuses", lambda: {"tools": [tool(type=None)]}
    ),
]
