"""Requests of Anthropic's Messages that our server and DeepSeek's own library take or refuse
alike."""

from __future__ import annotations

from typing import Any

from tests.server.differential import Body

OFF, ON = {"type": "disabled"}, {"type": "enabled", "budget_tokens": 1024}
EFFORTS = ("none", "minimal", "low", "medium", "high", "max", "ultra")
OBJECT = {"type": "object", "properties": {"a": {"type": "string"}}}
TEXT_SOURCE = {"type": "text", "media_type": "text/plain", "data": "x"}


def says(content: Any, role: str = "user") -> Body:
    return {"role": role, "content": content}


def text(content: str, **more: Any) -> Body:
    return {"type": "text", "text": content, **more}


def thought(content: str) -> Body:
    return {"type": "thinking", "thinking": content, "signature": "s"}


def use(call: str = "a", arguments: Any = None, name: str = "get") -> Body:
    given = {"a": "é"} if arguments is None else arguments
    return {"type": "tool_use", "id": call, "name": name, "input": given}


def result(call: str = "a", content: Any = "R", **more: Any) -> Body:
    return {"type": "tool_result", "tool_use_id": call, "content": content, **more}


def answers(*blocks: Body) -> Body:
    return says(list(blocks), "assistant")


def user(*blocks: Body) -> Body:
    return says(list(blocks))


def tool(schema: Any = OBJECT, name: str = "get", **more: Any) -> Body:
    return {"name": name, "description": "d", "input_schema": schema, **more}


USER = says("hi")
TOOLS = [tool()]

# Fields that both sides take, whatever the conversation.
TAKEN: dict[str, tuple[Any, ...]] = {
    "temperature": (0, 0.5, 2, None),
    "top_p": (0.3, 1, None),
    "top_k": (0, 5, None),
    "max_tokens": (1, 10**7, None),
    "stop_sequences": (["a"], ["a"] * 16, [], None),
    "stream": (True, False, None),
    "thinking": (ON, OFF, {"type": "adaptive"}, {"type": "adaptive", "display": "omitted"}, None),
    "output_config": ({}, None, *({"effort": effort} for effort in EFFORTS)),
    "metadata": ({"user_id": "x"}, {"user_id": None}, None),
    "service_tier": ("auto", "standard_only"),
    "container": ("c",),
    "mcp_servers": ([],),
    "cache_control": ({"type": "ephemeral"},),
}
# Fields that both sides refuse; in the same words, or as a body that cannot be read.
REFUSED: list[Body] = [
    {"temperature": 2.5},
    {"temperature": -1},
    {"temperature": "1"},
    {"top_p": 0},
    {"top_p": 2},
    {"max_tokens": 1.5},
    {"max_tokens": -1},
    {"stop_sequences": ["a"] * 17},
    {"stop_sequences": "a"},
    {"stream": 1},
    {"thinking": {}},
    {"thinking": {"type": "hard"}},
    {"output_config": {"effort": "weird"}},
    {"output_config": {"effort": 5}},
    {"tools": [{"type": "bash_20250124", "name": "bash"}]},
    {"tools": [tool(name="a b")]},
    {"tools": [tool(name="")]},
    {"tools": [tool(), tool()]},
    {"tools": [{"input_schema": OBJECT}]},
    {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "get"}, "thinking": ON},
    {"tools": TOOLS, "tool_choice": {"type": "tool"}},
    {"tools": TOOLS, "tool_choice": {"type": "weird"}},
    {"messages": []},
    {"messages": [user()]},
    {"messages": [USER, answers(), USER]},
    {"messages": [says("x", "foo")]},
    {"messages": [{"role": "user"}]},
    {"messages": [says(None)]},
    {"messages": [user({"type": "text"})]},
    {"messages": [user({"type": "weird"})]},
    {"messages": [user(use())]},
    {"messages": [user(thought("T"))]},
    {"messages": [USER, answers(result())]},
    {"messages": [USER, answers(use("a"), use("a")), user(result("a"))]},
    {"messages": [USER, answers({"type": "tool_use", "id": "a", "name": "g"}), user(result())]},
    {"messages": [USER, answers(use()), user({"type": "tool_result", "content": "x"})]},
    # what follows names ids in the library's words: see `unquoted`
    {"messages": [user(result())]},
    {"messages": [USER, user(result())]},
    {"messages": [USER, answers(use()), user(result("z"))]},
    {"messages": [USER, answers(use()), user(result(), result("z"))]},
    {"messages": [USER, answers(use()), user(result(), result())]},
    {"messages": [USER, answers(use()), USER]},
    {"messages": [USER, answers(use())]},
    {"messages": [USER, answers(use()), answers(text("x")), USER]},
    {"messages": [USER, answers(use()), answers(text("x")), user(result())]},
    {"messages": [USER, answers(use()), says("s", "system"), user(result())]},
    {"messages": [USER, answers(use("a"), use("b")), user(result("a"))]},
    {"messages": [USER, answers(use("a"), use("b")), user(result("a")), user(result("b"))]},
    {"messages": [USER, answers(use("a"), use("b")), user(result("a"), text("x"), result("b"))]},
    {"messages": [USER, answers(use()), user(text("first"), result())]},
    {"messages": [USER, answers(use(), text("after")), user(result())]},
    {"messages": [USER, answers(use("a"), text("x"), use("b")), user(result("a"), result("b"))]},
    {"messages": [USER, answers(thought("T"), use(), text("x"))]},
]
# What both sides take, in the same prompt, that random conversations do not hold.
SAME: list[Body] = [
    {"system": [text("A", cache_control={"type": "ephemeral"}), text("B")]},
    {"system": "S", "messages": [says([text("a"), text("b")], "system"), USER]},
    {"messages": [says("")]},
    {"messages": [user(text(""))]},
    {"messages": [user(text("a"), text(""), text("b"))]},
    {"messages": [says("x", "assistant"), USER]},
    {"messages": [USER, says("", "assistant"), USER]},
    {"messages": [USER, says("s", "system")]},
    {"messages": [USER, says("s", "system"), says("x", "assistant"), USER]},
    {"system": "S", "messages": [says("a", "system"), says("b", "system"), USER], "tools": TOOLS},
    {"messages": [USER, answers(text("a"), thought("T"), text("b"), thought("V")), USER]},
    {"messages": [USER, answers(thought("T")), USER], "tools": TOOLS},
    {"messages": [USER, answers(text("a"), thought("T"), text("b")), USER], "tools": TOOLS},
    {"messages": [USER, answers(use()), user(result())]},
    {"messages": [USER, answers(use("a"), thought("T"), use("b")), user(result("b"), result("a"))]},
    {"messages": [USER, answers(use()), user(result(content=None))], "tools": TOOLS},
    {"messages": [USER, answers(use()), user(result(content=[]))], "tools": TOOLS},
    {
        "messages": [
            USER,
            answers(thought("T"), text("x"), use("a"), use("b", {})),
            user(
                result("b", [text("R"), text("S")], is_error=True),
                result("a"),
                text("so"),
                text("?"),
            ),
        ],
        "tools": TOOLS,
    },
    {"messages": [USER, answers(use(name="a b")), user(result())], "tools": TOOLS},
    {"messages": [USER, answers(use(arguments={"x": 1.0, "y": [1, None]})), user(result())]},
    {"tools": []},
    {"tools": [tool(name="a" * 64), tool({"type": "object"}, "b-C_2")]},
    {"tools": [tool(cache_control={"type": "ephemeral"})]},
    {"tools": TOOLS, "tool_choice": {"type": "any"}},
    {"tools": TOOLS, "tool_choice": {"type": "none"}},
    {"tools": TOOLS, "tool_choice": {"type": "auto"}},
]
