"""The request body of the Responses API, typed; what it holds is honoured or refused by name.

Differences from DeepSeek's deepseek-recipe 0.2.0, beside those of the items (`responses_items`):

- unknown fields, tools other than functions, text.verbosity, truncation "auto", prompt templates
  and conversations are refused by name, where the library takes no notice of them;
- strict tools and others may stand side by side; the library wants all alike;
- text.format beside tools is refused: the grammar of the answer would forbid every call;
- tool_choice "required" without tools is refused; the library makes "auto" of it;
- include ["message.output_text.logprobs"] alone gives the log-probabilities of the chosen tokens,
  and top_logprobs alone those of the likeliest, too; the library heeds top_logprobs only;
- store and background mean what they do at OpenAI; the library says false to both;
- reasoning.summary "auto" gives no summary, and a reply header says so: the thought itself is in
  the reply. "concise" and "detailed" are refused.

`strict` of a tool is off unless set, as at DeepSeek; at OpenAI it is on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ingle.engine.request import SamplingParams
from ingle.errors import InvalidRequestError
from ingle.server.chat_types import MAX_MESSAGES, read_effort
from ingle.server.output_format import OutputFormat, says_json
from ingle.server.responses_items import Item, as_messages
from ingle.server.tool_choice import ToolChoice, check_tools, named, read_tool_choice
from ingle.server.turn import Turn
from ingle.server.types import Sampling, check_sampling, decode, refuse_values, shape_error

MAX_ITEMS = MAX_MESSAGES
MAX_METADATA = 16
INCLUDABLE = ("reasoning.encrypted_content", "message.output_text.logprobs")

# Fields that need something this server does not have, with the values that ask for nothing.
NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "truncation": ("disabled",),
    "service_tier": ("auto", "default"),
    "prompt_cache_retention": ("in_memory", "in-memory"),
    "prompt_cache_options": (),
    "conversation": (),
    "prompt": (),
    "moderation": (),
    "context_management": ([],),
    "background_options": ({"completion_window": "soonest"},),
    "access_programs": (),
    "image": (),
}


class ReasoningOptions(Struct, forbid_unknown_fields=True):
    """generate_summary is the old name of summary."""

    effort: str | None = None
    summary: Literal["auto"] | None = None
    generate_summary: Literal["auto"] | None = None
    context: Literal["auto"] | None = None
    mode: Literal["standard"] | None = None


class TextFormat(Struct, forbid_unknown_fields=True):
    """strict: the objects of the schema are closed; what is given is enforced either way."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextOptions(Struct, forbid_unknown_fields=True):
    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class FunctionTool(Struct, forbid_unknown_fields=True):
    """A function of the client's, in the flat shape of this API."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: Literal[False] | None = None

    def as_chat(self) -> dict[str, Any]:
        """The tool as prompts read it, without what was not given."""
        given = {name: value for name, value in self.echo().items() if value is not None}
        return {"type": given.pop("type"), "function": given}

    def echo(self) -> dict[str, Any]:
        """The tool as a response repeats it."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
            "strict": self.strict,
        }


class ResponsesRequest(Sampling, forbid_unknown_fields=True, kw_only=True):
    """Body of POST /v1/responses. UNSET or null: the model's own default.

    max_tool_calls: counts calls of tools that run on the server, of which there are none.
    """

    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    reasoning: ReasoningOptions | None = None
    text: TextOptions | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    truncation: Any | UnsetType = UNSET
    service_tier: Any | UnsetType = UNSET
    prompt_cache_retention: Any | UnsetType = UNSET
    prompt_cache_options: Any | UnsetType = UNSET
    conversation: Any | UnsetType = UNSET
    prompt: Any | UnsetType = UNSET
    moderation: Any | UnsetType = UNSET
    context_management: Any | UnsetType = UNSET
    background_options: Any | UnsetType = UNSET
    access_programs: Any | UnsetType = UNSET
    image: Any | UnsetType = UNSET

    @property
    def effort(self) -> str | None:
        return None if self.reasoning is None else self.reasoning.effort

    @property
    def wants_thinking(self) -> bool:
        return self.effort != "none"

    @property
    def wants_summary(self) -> bool:
        asked = self.reasoning
        return asked is not None and bool(asked.summary or asked.generate_summary)

    @property
    def stored(self) -> bool:
        """Whether the response is kept for later; OpenAI's default is yes."""
        return self.store is not False

    @property
    def logprobs(self) -> int | None:
        """How many likeliest tokens are scored beside the chosen one; None: nothing is."""
        asked = "message.output_text.logprobs" in (self.include or ())
        return 0 if self.top_logprobs is None and asked else self.top_logprobs

    @property
    def items(self) -> list[dict[str, Any]]:
        """The input as items, however it is spelled."""
        if isinstance(self.input, str):
            return [{"type": "message", "role": "user", "content": self.input}]
        return self.input or []


def decode_responses(body: bytes) -> ResponsesRequest:
    """Parse and check a body; InvalidRequestError names the first offending field."""
    request = decode(body, ResponsesRequest)
    refuse_values(request, NEUTRAL_VALUES)
    check_sampling(request)
    if request.include_usage:
        raise InvalidRequestError(
            "stream_options.include_usage is not a field of this API: usage is always there.",
            "stream_options.include_usage",
        )
    if request.input is None and not (request.instructions or request.previous_response_id):
        raise InvalidRequestError("Either input or instructions must be provided", "input")
    if request.input == []:
        raise InvalidRequestError("Input items array must not be empty", "input")
    _check_count(len(request.items))
    if request.top_logprobs is not None and not 0 <= request.top_logprobs <= 20:
        raise InvalidRequestError(
            "Invalid top_logprobs value, the valid range of top_logprobs is [0, 20].",
            "top_logprobs",
        )
    for name in ("max_output_tokens", "max_tool_calls"):
        if (value := getattr(request, name)) is not None and value < 1:
            raise InvalidRequestError(f"{name} must be at least 1.", name)
    if any(name not in INCLUDABLE for name in request.include or ()):
        raise InvalidRequestError(f"include takes {' and '.join(INCLUDABLE)}.", "include")
    if request.background and request.stream:
        raise InvalidRequestError(
            "A background response cannot be streamed; ask for it with GET.", "stream"
        )
    if request.background and not request.stored:
        raise InvalidRequestError("A background response needs store: true.", "store")
    _check_metadata(request.metadata or {})
    return request


def _check_count(items: int) -> None:
    if items > MAX_ITEMS:
        raise InvalidRequestError(f"A conversation takes {MAX_ITEMS} items.", "input")


def _check_metadata(metadata: dict[str, str]) -> None:
    """OpenAI's bounds."""
    if len(metadata) > MAX_METADATA:
        raise InvalidRequestError(f"metadata takes {MAX_METADATA} pairs.", "metadata")
    if any(len(key) > 64 or len(value) > 512 for key, value in metadata.items()):
        raise InvalidRequestError(
            "A key of metadata takes 64 characters and a value 512.", "metadata"
        )


def read_function_tools(tools: list[dict[str, Any]] | None) -> list[FunctionTool]:
    """The tools of a request, typed; InvalidRequestError names those that are no functions."""
    read = []
    for index, tool in enumerate(tools or ()):
        where = f"tools[{index}]"
        if tool.get("type") != "function":
            raise InvalidRequestError(
                f"{where}.type must be function: this server runs no tools of its own.",
                f"{where}.type",
            )
        try:
            read.append(msgspec.convert(tool, FunctionTool))
        except msgspec.ValidationError as error:
            raise shape_error(str(error), where) from None
    return read


def as_turn(request: ResponsesRequest, items: Sequence[Item], earlier: int = 0) -> Turn:
    """The conversation a checked body asks to be answered.

    items: what it follows and its own input, of which the first `earlier` are not its own.
    """
    _check_count(len(items))
    system = [{"role": "system", "content": request.instructions}] if request.instructions else []
    messages = system + as_messages(items, earlier)
    tools = _chat_tools(request)
    choice = _tool_choice(request.tool_choice, tools)
    if choice.forced and request.wants_thinking:
        raise InvalidRequestError("Thinking mode does not support this tool_choice", "tool_choice")
    if choice.mode == "none":
        tools = []
    output = _output_format(request.text)
    if output is not None and tools:
        raise InvalidRequestError("text.format should not be used with tools", "text.format")
    if output is not None and output.kind == "json_object":
        _check_says_json(messages)
    return Turn(
        messages=messages,
        tools=tools,
        tool_choice=choice,
        parallel_calls=request.parallel_tool_calls is not False,
        thinking=request.wants_thinking,
        effort=read_effort(request.effort, "reasoning.effort"),
        output=output,
    )


def _chat_tools(request: ResponsesRequest) -> list[dict[str, Any]]:
    try:
        return check_tools([tool.as_chat() for tool in read_function_tools(request.tools)])
    except InvalidRequestError as error:
        raise in_own_words(error) from None


def in_own_words(error: InvalidRequestError) -> InvalidRequestError:
    """An error about a translated request, its field named as this API names it."""
    param = (error.param or "").replace(".function.", ".")
    for theirs, ours in (
        ("messages", "input"),
        ("max_tokens", "max_output_tokens"),
        ("reasoning_effort", "reasoning.effort"),
    ):
        if re.match(rf"{theirs}\b", param):
            param = ours
    return type(error)(str(error).replace(".function.", "."), param or None)


def _tool_choice(choice: str | dict[str, Any] | None, tools: list[dict[str, Any]]) -> ToolChoice:
    if isinstance(choice, dict):
        name = choice.get("name")
        if set(choice) == {"type", "name"} and choice["type"] == "function" and type(name) is str:
            return named(name, tools)
    elif choice in (None, "auto", "none", "required"):
        return read_tool_choice(choice, tools)
    raise InvalidRequestError(
        "tool_choice must be none, auto, required or {'type': 'function', 'name': ...}.",
        "tool_choice",
    )


def _output_format(text: TextOptions | None) -> OutputFormat | None:
    wanted = None if text is None else text.format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return OutputFormat("json_object", None, "text.format")
    if wanted.schema is None:
        raise InvalidRequestError("text.format.schema must be a JSON schema.", "text.format.schema")
    if wanted.name is None or not re.fullmatch("[a-zA-Z0-9_-]{1,64}", wanted.name):
        raise InvalidRequestError(
            "text.format.name must match '^[a-zA-Z0-9_-]{1,64}$'.", "text.format.name"
        )
    return OutputFormat("json_schema", wanted.schema, "text.format.schema", wanted.strict is True)


def _check_says_json(messages: list[dict[str, Any]]) -> None:
    """OpenAI's and DeepSeek's rule: a model that is not told of JSON writes blanks for ever."""
    if not says_json(messages):
        raise InvalidRequestError(
            "Response input messages must contain the word 'json' in some form to use "
            "'text.format' of type 'json_object'.",
            "text.format",
        )


def settings(request: ResponsesRequest, params: SamplingParams, model: str) -> dict[str, Any]:
    """A response object before anything is written: what was asked for, and how it is sampled."""
    reasoning, text = request.reasoning or ReasoningOptions(), request.text or TextOptions()
    return {
        "id": None,
        "object": "response",
        "created_at": None,
        "status": "in_progress",
        "background": bool(request.background),
        "completed_at": None,
        "content_filters": None,
        "error": None,
        "frequency_penalty": params.frequency_penalty,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "model": model,
        "moderation": None,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "presence_penalty": params.presence_penalty,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "prompt_cache_retention": request.prompt_cache_retention or None,
        "reasoning": {
            "effort": reasoning.effort,
            "summary": reasoning.summary or reasoning.generate_summary,
        },
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": request.stored,
        "temperature": params.temperature,
        "text": {"format": _format_echo(text.format), "verbosity": text.verbosity},
        "tool_choice": request.tool_choice or "auto",
        "tools": [tool.echo() for tool in read_function_tools(request.tools)],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": params.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": request.user,
        "metadata": request.metadata or {},
    }


def _format_echo(wanted: TextFormat | None) -> dict[str, Any]:
    if wanted is None or wanted.type != "json_schema":
        return {"type": "text" if wanted is None else wanted.type}
    return msgspec.to_builtins(wanted)  # type: ignore[no-any-return]
