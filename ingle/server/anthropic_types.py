"""The request body of Anthropic's Messages API, typed, and the conversation it comes down to.

Conversion as in DeepSeek's deepseek-recipe 0.2.0, with these differences:

- an assistant message at the end is continued, as Anthropic's interface has it; the library closes
  it and opens another;
- tools of type "custom", Anthropic's own spelling of a plain tool, are taken; the library refuses
  them. The schema of a strict tool is closed, as in Chat Completions;
- output_config.format is enforced; the library ignores it;
- redacted_thinking is dropped, where the library refuses it; images and documents are refused,
  where it puts a placeholder into the prompt: this server reads text;
- unknown fields are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct

from ingle.errors import InvalidRequestError
from ingle.server.chat_types import MAX_MESSAGES, read_effort
from ingle.server.output_format import OutputFormat
from ingle.server.tool_choice import ToolChoice, check_tools, named
from ingle.server.turn import Turn
from ingle.server.types import Sampling, check_sampling, check_stops


class Block(Struct, forbid_unknown_fields=True):
    """One content block of any type; which fields a type needs is checked where it is read."""

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[Block] | None = None
    is_error: bool | None = None  # a hint: the format has no place for it
    source: Any = None
    title: Any = None
    context: Any = None
    citations: Any = None
    caller: Any = None
    cache_control: Any = None  # a hint: everything is cached here anyway


class AnthropicMessage(Struct, forbid_unknown_fields=True):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class AnthropicTool(Struct, forbid_unknown_fields=True):
    name: str
    input_schema: dict[str, Any] | None = None
    description: str | None = None
    type: str | None = None
    strict: bool | None = None
    cache_control: Any = None
    input_examples: Any = None
    eager_input_streaming: bool | None = None  # arguments are streamed as they are written


class AnthropicToolChoice(Struct, forbid_unknown_fields=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class AnthropicThinking(Struct, forbid_unknown_fields=True):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None
    display: str | None = None


class OutputConfig(Struct, forbid_unknown_fields=True):
    effort: str | None = None
    format: dict[str, Any] | None = None


class Metadata(Struct, forbid_unknown_fields=True):
    user_id: str | None = None


class CountRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """What makes the prompt; the body of /v1/messages/count_tokens."""

    messages: list[AnthropicMessage]
    model: str | None = None
    system: str | list[Block] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: AnthropicToolChoice | None = None
    thinking: AnthropicThinking | None = None
    output_config: OutputConfig | None = None
    cache_control: Any = None
    container: Any = None  # ignored, as at DeepSeek
    mcp_servers: list[Any] | None = None

    @property
    def wants_thinking(self) -> bool:
        """On unless `thinking` or, in its absence, the effort says no."""
        if self.thinking is not None:
            return self.thinking.type != "disabled"
        return self.output_config is None or self.output_config.effort != "none"


class MessagesRequest(CountRequest, forbid_unknown_fields=True, kw_only=True):
    """Body of POST /v1/messages. max_tokens: None, which Anthropic refuses, is the model's own."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    thread: Any = None  # a conversation kept by the server: refused in `Messages.prepare`

    def sampling(self) -> Sampling:
        """The body's sampling in the terms of the other dialects, checked."""
        check_stops(tuple(self.stop_sequences or ()), "stop_sequences")
        sampling = Sampling(
            model=self.model,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            stop=self.stop_sequences,
            stream=self.stream,
            user_id=self.metadata.user_id if self.metadata else None,
        )
        check_sampling(sampling)
        return sampling


def as_turn(request: CountRequest, moves_systems: bool) -> Turn:
    """The conversation a body asks to be answered; InvalidRequestError names what is wrong.

    moves_systems: the prompt format does so; a system message inside the conversation then stays
    in its place as a reminder of the user's.
    """
    if not request.messages:
        raise InvalidRequestError("messages: at least one message is required", "messages")
    if len(request.messages) > MAX_MESSAGES:
        raise InvalidRequestError(f"messages takes 1 to {MAX_MESSAGES} messages.", "messages")
    tools = _tools(request.tools or [])
    choice, parallel = _choice(request, tools)
    config = request.output_config or OutputConfig()
    return Turn(
        messages=list(_messages(request, moves_systems)),
        tools=[] if choice.mode == "none" else tools,
        tool_choice=choice,
        parallel_calls=parallel,
        thinking=request.wants_thinking,
        effort=read_effort(config.effort, "output_config.effort"),
        output=_output_format(config.format),
    )


def _messages(request: CountRequest, moves_systems: bool) -> Iterator[dict[str, Any]]:
    if request.system is not None:
        yield {"role": "system", "content": _joined(request.system, "system")}
    last = len(request.messages) - 1
    asked: list[str] = []  # ids of the calls that the next message must answer
    for index, message in enumerate(request.messages):
        where = f"messages.{index}"
        if not message.content and isinstance(message.content, list):
            raise InvalidRequestError(f"{where}: all messages must have non-empty content", where)
        _check_answers(message, asked, index)
        asked = []
        if message.role == "system":
            text = _joined(message.content, where)
            if moves_systems:
                reminder = f"<system-reminder>\n{text}\n</system-reminder>" if text else ""
                yield {"role": "user", "content": reminder}
            else:
                yield {"role": "system", "content": text}
        elif message.role == "user":
            yield from _user(message, where)
        else:
            converted = _assistant(message, where)
            asked = [call["id"] for call in converted.get("tool_calls", ())]
            if index == last and not asked:
                converted["prefix"] = True
            yield converted
    if asked:
        raise _unanswered(f"messages.{last}")


def _user(message: AnthropicMessage, where: str) -> Iterator[dict[str, Any]]:
    """Results of calls, and each text as a message of its own, in their order."""
    if isinstance(message.content, str):
        yield {"role": "user", "content": message.content}
        return
    for index, block in enumerate(message.content):
        inner = f"{where}.content.{index}"
        if block.type == "tool_result":
            content = "" if block.content is None else _joined(block.content, f"{inner}.content")
            yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}
        elif block.type == "tool_use":
            raise InvalidRequestError(
                f"{where}: `tool_use` blocks can only be in `assistant` messages", f"{inner}.type"
            )
        elif block.type == "thinking":
            raise InvalidRequestError(
                f"{where}.content: thinking blocks may only be in `assistant` messages",
                f"{inner}.type",
            )
        else:
            yield {"role": "user", "content": _text(block, inner)}


def _assistant(message: AnthropicMessage, where: str) -> dict[str, Any]:
    if isinstance(message.content, str):
        return {"role": "assistant", "content": message.content}
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for index, block in enumerate(message.content):
        inner = f"{where}.content.{index}"
        if block.type == "thinking":
            thoughts.append(_need(block.thinking, f"{inner}.thinking"))
        elif block.type == "tool_use":
            arguments = json.dumps(_need(block.input, f"{inner}.input"), ensure_ascii=False)
            function = {"name": _need(block.name, f"{inner}.name"), "arguments": arguments}
            id_ = _need(block.id, f"{inner}.id")
            if any(call["id"] == id_ for call in calls):
                raise InvalidRequestError(f"{inner}: `tool_use` ids must be unique", f"{inner}.id")
            calls.append({"id": id_, "type": "function", "function": function})
        elif block.type != "redacted_thinking":
            text = _text(block, inner)
            if calls:  # no format has a place for text behind calls
                raise _unanswered(f"{where}.{index}")
            texts.append(text)
    converted: dict[str, Any] = {"role": "assistant", "content": "\n\n".join(texts)}
    if thoughts:
        converted["reasoning_content"] = "\n\n".join(thoughts)
    if calls:
        converted["tool_calls"] = calls
    return converted


def _check_answers(message: AnthropicMessage, asked: list[str], index: int) -> None:
    """Anthropic's rule: results begin the message right after their calls, one for each."""
    where = f"messages.{index}"
    blocks = message.content if isinstance(message.content, list) else []
    found: list[str] = []
    for place, block in enumerate(blocks):
        if block.type != "tool_result":
            continue
        inner = f"{where}.content.{place}"
        if message.role != "user":
            raise InvalidRequestError(
                f"{where}: `tool_result` blocks can only be in `user` messages", f"{inner}.type"
            )
        id_ = _need(block.tool_use_id, f"{inner}.tool_use_id")
        if id_ not in asked:
            raise InvalidRequestError(
                f"unexpected `{inner}: tool_use_id` found in `tool_result` blocks. Each "
                "`tool_result` block must have a corresponding `tool_use` block in the previous "
                "message.",
                f"{inner}.tool_use_id",
            )
        if id_ in found:
            raise InvalidRequestError(
                f"{inner}: each tool_use must have a single result.", f"{inner}.tool_use_id"
            )
        if len(found) < place:
            raise _unanswered(where)
        found.append(id_)
    if len(found) < len(asked):
        raise _unanswered(f"messages.{index - 1}" if found else where)


def _unanswered(where: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{where}: `tool_use` ids were found without `tool_result` blocks immediately after. Each "
        "`tool_use` block must have a corresponding `tool_result` block in the next message.",
        where,
    )


def _joined(content: str | list[Block], where: str) -> str:
    if isinstance(content, str):
        return content
    return "\n\n".join(_text(block, f"{where}.{index}") for index, block in enumerate(content))


def _text(block: Block, where: str) -> str:
    if block.type != "text":
        raise InvalidRequestError(
            f"{where}: this server reads text; blocks of this type are not taken here.",
            f"{where}.type",
        )
    return _need(block.text, f"{where}.text")


def _need(value: Any, where: str) -> Any:
    if value is None:
        raise InvalidRequestError(f"{where}: Field required", where)
    return value


def _tools(tools: list[AnthropicTool]) -> list[dict[str, Any]]:
    """Checked, and in the OpenAI shape that prompts are made from."""
    converted = []
    for index, tool in enumerate(tools):
        if tool.type not in (None, "custom"):
            raise InvalidRequestError(
                f"tools[{index}]: server tools are not supported", f"tools[{index}].type"
            )
        schema = _need(tool.input_schema, f"tools[{index}].input_schema")
        function: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        function["parameters"] = schema
        if tool.strict is not None:
            function["strict"] = tool.strict
        converted.append({"type": "function", "function": function})
    try:
        return check_tools(converted)
    except InvalidRequestError as error:
        raise InvalidRequestError(_flat(str(error)), _flat(error.param or "tools")) from None


def _flat(text: str) -> str:
    """Anthropic's names for what the OpenAI shape nests."""
    return text.replace(".function.parameters", ".input_schema").replace(".function", "")


def _choice(request: CountRequest, tools: list[dict[str, Any]]) -> tuple[ToolChoice, bool]:
    """What must be called, and whether several calls may come at once."""
    given = request.tool_choice or AnthropicToolChoice("auto")
    parallel = not given.disable_parallel_tool_use
    if given.type == "any" and not tools:
        raise InvalidRequestError("tool_choice needs tools.", "tool_choice")
    if given.type == "tool":
        choice = named(_need(given.name, "tool_choice.name"), tools)
        if request.wants_thinking:
            raise InvalidRequestError(
                "Thinking mode does not support this tool_choice", "tool_choice"
            )
        return choice, parallel
    modes: dict[str, Literal["auto", "required", "none"]] = {"any": "required", "none": "none"}
    return ToolChoice(modes.get(given.type, "auto")), parallel


def _output_format(value: dict[str, Any] | None) -> OutputFormat | None:
    """Anthropic's flat `{"type": "json_schema", "schema": ...}`."""
    if value is None:
        return None
    param = "output_config.format"
    if value.get("type") != "json_schema" or not isinstance(value.get("schema"), dict):
        raise InvalidRequestError(f"{param} takes type json_schema with a schema.", param)
    return OutputFormat("json_schema", value["schema"], f"{param}.schema")
