"""Tools over HTTP: what a request may ask, what binds the model, what the client gets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.server.calling import TOKENIZER, allows, calling

QUESTION = [{"role": "user", "content": "Weather?"}]
OFF = {"type": "disabled"}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def tool(name: str = "get", strict: bool | None = None) -> dict[str, Any]:
    function = {"name": name, "description": "D", "parameters": CITY}
    return {"type": "function", "function": function | ({"strict": strict} if strict else {})}


def call(name: str, arguments: str) -> str:
    return f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>"


def block(*calls: str) -> str:
    return f"<｜tool▁calls▁begin｜>{''.join(calls)}<｜tool▁calls▁end｜>"


KOELN, ROME = '{"city": "Köln"}', '{"city": "Rome"}'
TWO = "Let me see." + block(call("get", KOELN), call("now", "{}"))


@pytest.fixture(scope="module")
def live(start, scripted) -> Iterator[Any]:
    with calling(start, scripted, "deepseek_v31", TWO) as running:
        yield running


def ask(live, **fields: Any):
    return live.chat(**{"messages": QUESTION, "tools": [tool(), tool("now")], **fields})


def chunks(reply) -> list[dict[str, Any]]:
    lines = [line[6:] for line in reply.text.split("\n\n") if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def prompt(live) -> str:
    return TOKENIZER.decode(live.engine.seen[-1].prompt, skip_special=False)


def grammar(live):
    return live.engine.seen[-1].params.grammar


def test_calls_of_a_whole_reply(live):
    choice = ask(live, thinking=OFF).json()["choices"][0]
    message = choice["message"]
    assert (message["content"], choice["finish_reason"]) == ("Let me see.", "tool_calls")
    first, second = message["tool_calls"]
    assert re.fullmatch(r"call_00_[a-zA-Z0-9]{20}", first.pop("id"))
    assert re.fullmatch(r"call_01_[a-zA-Z0-9]{20}", second.pop("id"))
    function = {"name": "get", "arguments": KOELN}
    assert first == {"index": 0, "type": "function", "function": function}
    function = {"name": "now", "arguments": "{}"}
    assert second == {"index": 1, "type": "function", "function": function}


def test_calls_of_a_stream_add_up_to_the_whole(live):
    whole = ask(live, thinking=OFF).json()["choices"][0]["message"]
    calls: list[dict[str, Any]] = []
    content = ""
    got = chunks(ask(live, thinking=OFF, stream=True))
    for chunk in got:
        delta = chunk["choices"][0]["delta"]
        content += delta.get("content") or ""
        for part in delta.get("tool_calls", ()):
            if "id" in part:
                assert part["index"] == len(calls) and part["function"]["arguments"] == ""
                calls.append(part)
            else:
                assert part.keys() == {"index", "function"}
                calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
    assert content == whole["content"]
    for made in (calls, whole["tool_calls"]):
        for part in made:
            del part["id"]
    assert calls == whole["tool_calls"]
    assert got[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert (
        sum("tool_calls" in chunk["choices"][0]["delta"] for chunk in got) > 8
    )  # as it is written


def test_the_openai_package_runs_the_loop(live):
    client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)
    fields = {"model": "ingle", "tools": [tool(), tool("now")], "extra_body": {"thinking": OFF}}
    reply = client.chat.completions.create(messages=QUESTION, **fields)
    message = reply.choices[0].message
    results = [
        {"role": "tool", "tool_call_id": made.id, "content": f"result of {made.function.name}"}
        for made in reversed(message.tool_calls)
    ]
    client.chat.completions.create(messages=[*QUESTION, message, *results], **fields)
    assert prompt(live).endswith(
        f"<｜User｜>Weather?<｜Assistant｜></think>{TWO}<｜end▁of▁sentence｜>"
        "<｜tool▁output▁begin｜>result of get<｜tool▁output▁end｜>"
        "<｜tool▁output▁begin｜>result of now<｜tool▁output▁end｜>"
    )


def test_auto_binds_nothing(live):
    for choice in (None, "auto"):
        assert ask(live, tool_choice=choice).status_code == 200
        assert grammar(live) is None
        assert "### get\nDescription: D" in prompt(live)


def test_none_leaves_the_tools_out(live):
    message = ask(live, tool_choice="none", thinking=OFF).json()["choices"][0]["message"]
    assert "Description" not in prompt(live)
    assert grammar(live) is None
    assert "tool_calls" not in message


def test_required_is_a_call_and_nothing_else(live):
    assert ask(live, tool_choice="required", thinking=OFF).status_code == 200
    assert allows(grammar(live), block(call("get", KOELN)))
    assert allows(grammar(live), block(call("now", "{}"), call("get", '{"any": 1}')))
    assert not allows(grammar(live), "Hello")
    assert not allows(grammar(live), "Hello" + block(call("get", KOELN)))
    assert not allows(grammar(live), block(call("other", "{}")))
    assert not allows(grammar(live), block())


def test_named_is_a_call_of_that_tool(live):
    choice = {"type": "function", "function": {"name": "now"}}
    assert ask(live, tool_choice=choice, thinking=OFF).status_code == 200
    assert allows(grammar(live), block(call("now", "{}")))
    assert not allows(grammar(live), block(call("get", KOELN)))
    assert not allows(grammar(live), "")


def test_thinking_goes_with_no_demand_to_call(live):
    for choice in ("required", {"type": "function", "function": {"name": "now"}}):
        error = ask(live, tool_choice=choice).json()["error"]
        assert error["message"] == "Thinking mode does not support this tool_choice"
        assert error["param"] == "tool_choice"


def test_a_name_that_is_not_offered(live):
    choice = {"type": "function", "function": {"name": "PLANTED"}}
    reply = ask(live, tool_choice=choice, thinking=OFF)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "tool_choice")
    assert "PLANTED" not in reply.text


def test_strict_arguments_follow_the_schema(live):
    assert ask(live, tools=[tool(strict=True), tool("now")], thinking=OFF).status_code == 200
    assert allows(grammar(live), "just text")
    assert allows(grammar(live), "text" + block(call("get", KOELN)))
    assert allows(grammar(live), block(call("now", '{"free": [1]}')))
    for arguments in ("{}", '{"city": 1}', '{"city": "x", "more": 1}', '"x"', '{"city": "x"'):
        assert not allows(grammar(live), block(call("get", arguments)))
    assert not allows(grammar(live), block(call("unknown", "{}")))


def test_strict_schemas_are_closed(live):
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}}
    function = {"name": "get", "strict": True, "parameters": parameters}
    ask(live, tools=[{"type": "function", "function": function}], thinking=OFF)
    assert '"additionalProperties": false, "required": ["a"]' in prompt(live)
    assert allows(grammar(live), block(call("get", '{"a": 1}')))
    assert not allows(grammar(live), block(call("get", "{}")))
    assert not allows(grammar(live), block(call("get", '{"a": 1, "b": 2}')))


def test_with_thinking_the_grammar_begins_behind_the_thought(live):
    assert ask(live, tools=[tool(strict=True)]).status_code == 200
    thought = f"I could {block(call('get', '1'))}</think>"
    assert allows(grammar(live), thought + block(call("get", KOELN)))
    assert not allows(grammar(live), thought + block(call("get", "1")))
    assert not allows(grammar(live), "no end")


def test_one_call_at_a_time(live):
    one, two = block(call("get", KOELN)), block(call("get", KOELN), call("get", ROME))
    for fields in ({"tool_choice": "required"}, {"tools": [tool(strict=True)]}, {}):
        for parallel in (True, False):
            ask(live, thinking=OFF, parallel_tool_calls=parallel, **fields)
            if fields or not parallel:
                assert allows(grammar(live), one)
                assert allows(grammar(live), two) == parallel
    assert allows(grammar(live), "text") and allows(grammar(live), "text" + one)


def test_a_strict_schema_that_cannot_be_bound_is_refused_by_name(live):
    parameters = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)"}}}
    function = {"name": "get", "strict": True, "parameters": parameters}
    reply = ask(live, tools=[tool(), {"type": "function", "function": function | {"name": "b"}}])
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].startswith("tools")
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(400):
        deep = {"type": "object", "properties": {"a": deep}}
    function["parameters"] = deep
    reply = ask(live, tools=[{"type": "function", "function": function}])
    assert (reply.status_code, reply.json()["error"]["param"]) == (
        400,
        "tools[0].function.parameters",
    )
    assert ask(live).status_code == 200


def test_a_call_that_is_cut_off_is_handed_out_as_far_as_it_goes(start, scripted):
    text = "x" + block(call("get", KOELN))
    with calling(start, scripted, "deepseek_v31", text) as live:
        choice = ask(live, thinking=OFF, max_tokens=12).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert KOELN.startswith(choice["message"]["tool_calls"][0]["function"]["arguments"])


def test_content_is_null_beside_calls_alone(start, scripted):
    with calling(start, scripted, "deepseek_v31", block(call("get", KOELN))) as live:
        message = ask(live, thinking=OFF).json()["choices"][0]["message"]
    assert message["content"] is None and len(message["tool_calls"]) == 1


FORMATS = {
    "deepseek_r1": (
        "so\n</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get\n"
        f"```json\n{KOELN}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek_v4": (
        'so</think>\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="get">\n'
        '<｜DSML｜parameter name="city" '
        'string="true">Köln</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>'
    ),
    "deepseek_v41": (
        'so</think>\n\n<｜DSML｜ calls>\n<｜DSML｜ invoke name="get">\n'
        '<｜DSML｜ parameter name="city" '
        'string="true">Köln</｜DSML｜ parameter>\n</｜DSML｜ invoke>\n</｜DSML｜ calls>'
    ),
}


@pytest.mark.parametrize("encoder", FORMATS)
def test_other_generations_give_the_same(start, scripted, encoder):
    with calling(start, scripted, encoder, FORMATS[encoder]) as live:
        choice = ask(live, tools=[tool(strict=True)]).json()["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["reasoning_content"] == "so"
        function = choice["message"]["tool_calls"][0]["function"]
        assert function == {"name": "get", "arguments": KOELN}
        assert allows(grammar(live), FORMATS[encoder])
        assert not allows(grammar(live), FORMATS[encoder].replace("city", "town"))
