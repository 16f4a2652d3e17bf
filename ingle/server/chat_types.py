"""The request body of Chat Completions, typed; what it holds is honoured or refused by name."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ingle.errors import InvalidRequestError
from ingle.server.output_format import OutputFormat, says_json
from ingle.server.tool_choice import check_tools, read_tool_choice
from ingle.server.turn import Turn
from ingle.server.types import Sampling, check_sampling, decode, refuse_values

MAX_MESSAGES = 4096
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra")

# Fields of the OpenAI and DeepSeek APIs that need something this server does not have, with the
# values that ask for nothing and are therefore accepted.
NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "metadata": ({},),
    "audio": (),
    "prediction": (),
    "verbosity": ("medium",),
    "web_search_options": (),
    "prompt_cache_retention": ("in_memory", "in-memory"),
}


class ContentPart(Struct, forbid_unknown_fields=True):
    """One part of a message; only text parts are read and nothing is ever fetched."""

    type: str
    text: str | None = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None
    cache_control: Any = None  # a hint of other APIs: everything is cached here anyway


class CalledFunction(Struct, forbid_unknown_fields=True):
    name: str
    arguments: str
    parsed_arguments: Any = None  # the openai package's own reading of them, sent back


class ToolCall(Struct, forbid_unknown_fields=True):
    """A call the model made, sent back; `index` is what streamed calls carry."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"
    index: int | None = None


class Message(Struct, forbid_unknown_fields=True):
    """One turn. Both spellings of the reasoning are accepted; each generation has its own rule
    about which of it is written back."""

    role: Literal["system", "developer", "user", "assistant", "tool", "latest_reminder"]
    content: str | list[ContentPart] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    prefix: bool | None = None
    name: str | None = None  # without effect, as at DeepSeek: no format has a place for it
    parsed: Any = None  # the openai package's own reading of the content, sent back
    provider_specific_fields: Any = None  # litellm's notes on a reply, sent back
    # sent back by clients that echo a reply; anything but null is refused
    refusal: Any = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None

    def as_prompt(self, index: int) -> dict[str, Any]:
        """The message as `ingle.prompt` reads it; `index` names it in errors."""
        where = f"messages[{index}]"
        for name in ("refusal", "annotations", "audio", "function_call"):
            if getattr(self, name) not in (None, []):
                raise InvalidRequestError(f"{where}.{name} is not supported.", f"{where}.{name}")
        message: dict[str, Any] = {"role": self.role, "content": self._text(where)}
        reasoning = self.reasoning if self.reasoning_content is None else self.reasoning_content
        if self.role == "assistant":
            if reasoning is not None:
                message["reasoning_content"] = reasoning
            if self.tool_calls:
                message["tool_calls"] = msgspec.to_builtins(self.tool_calls)
            elif self.content is None and not (self.prefix and reasoning):
                raise InvalidRequestError(
                    "Invalid assistant message: content or tool_calls must be set",
                    f"{where}.content",
                )
        elif self.content is None:
            raise InvalidRequestError(f"{where}.content must be set.", f"{where}.content")
        if self.role == "tool":
            message["tool_call_id"] = self.tool_call_id
        if self.prefix:
            message["prefix"] = True
        return message

    def _text(self, where: str) -> str | None:
        if self.content is None or isinstance(self.content, str):
            return self.content
        texts: list[str] = []
        for part in self.content:
            if part.type != "text" or part.text is None:
                raise InvalidRequestError(
                    f"{where}.content takes text parts only; files and URLs are not fetched.",
                    f"{where}.content",
                )
            texts.append(part.text)
        return "\n\n".join(texts)  # as DeepSeek's library joins them


class Thinking(Struct, forbid_unknown_fields=True):
    type: Literal["enabled", "disabled", "adaptive"]


class StructuredOutputs(Struct, forbid_unknown_fields=True):
    """vLLM's field for what OpenAI's response_format cannot say; give one."""

    json: dict[str, Any] | str | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


class ChatRequest(Sampling, forbid_unknown_fields=True, kw_only=True):
    """Body of POST /v1/chat/completions. UNSET or null: the model's own default."""

    messages: list[Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    thinking: Thinking | None = None
    reasoning_effort: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: StructuredOutputs | None = None
    functions: Any | UnsetType = UNSET
    function_call: Any | UnsetType = UNSET
    modalities: Any | UnsetType = UNSET
    store: Any | UnsetType = UNSET
    service_tier: Any | UnsetType = UNSET
    metadata: Any | UnsetType = UNSET
    audio: Any | UnsetType = UNSET
    prediction: Any | UnsetType = UNSET
    verbosity: Any | UnsetType = UNSET
    web_search_options: Any | UnsetType = UNSET
    prompt_cache_retention: Any | UnsetType = UNSET

    @property
    def wants_thinking(self) -> bool:
        """DeepSeek's two switches, of which `thinking` is the stronger; thinking is on without.

        The retired name deepseek-chat was the same model without thinking.
        """
        if self.thinking is not None:
            return self.thinking.type != "disabled"
        if self.reasoning_effort is not None:
            return self.reasoning_effort != "none"
        return self.model != "deepseek-chat"

    @property
    def token_limit(self) -> int | None:
        """Either spelling of max_tokens; InvalidRequestError if they differ."""
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise InvalidRequestError(
                "max_tokens and max_completion_tokens differ; give one.", "max_completion_tokens"
            )
        return limits.pop() if limits else None


def decode_chat(body: bytes) -> ChatRequest:
    """Parse and check a body; InvalidRequestError names the first offending field."""
    request = decode(body, ChatRequest)
    refuse_values(request, NEUTRAL_VALUES)
    check_sampling(request)
    if not request.messages:
        raise InvalidRequestError("Empty input messages", "messages")
    if len(request.messages) > MAX_MESSAGES:
        raise InvalidRequestError(f"messages takes 1 to {MAX_MESSAGES} messages.", "messages")
    if request.top_logprobs is not None and not request.logprobs:
        raise InvalidRequestError(
            "Invalid top_logprobs and logprobs value, logprobs must be set to true if "
            "top_logprobs is used.",
            "top_logprobs",
        )
    if request.top_logprobs is not None and not 0 <= request.top_logprobs <= 20:
        raise InvalidRequestError(
            "Invalid top_logprobs value, the valid range of top_logprobs is [0, 20].",
            "top_logprobs",
        )
    return request


def as_turn(request: ChatRequest) -> Turn:
    """The conversation a checked body asks to be answered."""
    tools = check_tools(request.tools)
    choice = read_tool_choice(request.tool_choice, tools)
    if choice.forced and request.wants_thinking:
        raise InvalidRequestError("Thinking mode does not support this tool_choice", "tool_choice")
    messages = [message.as_prompt(index) for index, message in enumerate(request.messages)]
    output = _output_format(request)
    if output is not None and tools and choice.mode != "none":
        raise InvalidRequestError(
            "response_format should not be used with tools", "response_format"
        )
    if output is not None and output.kind == "json_object":
        _check_says_json(messages)
    return Turn(
        messages=messages,
        tools=[] if choice.mode == "none" else tools,
        tool_choice=choice,
        parallel_calls=request.parallel_tool_calls is not False,
        thinking=request.wants_thinking,
        effort=read_effort(request.reasoning_effort),
        output=output,
    )


def read_effort(effort: str | None, param: str = "reasoning_effort") -> str | None:
    """A checked effort, None for the default; InvalidRequestError for a word nobody knows."""
    if effort is not None and effort not in EFFORTS:
        raise InvalidRequestError(f"{param} must be one of {', '.join(EFFORTS)}.", param)
    return None if effort == "none" else effort


def _output_format(request: ChatRequest) -> OutputFormat | None:
    wanted = OutputFormat.from_response_format(request.response_format)
    structured = request.structured_outputs
    if structured is None:
        return wanted
    if wanted is not None:
        raise InvalidRequestError(
            "Give either response_format or structured_outputs.", "structured_outputs"
        )
    return OutputFormat.from_structured_outputs(msgspec.to_builtins(structured))


def _check_says_json(messages: list[dict[str, Any]]) -> None:
    """OpenAI's and DeepSeek's rule: a model that is not told of JSON writes blanks for ever."""
    if not says_json(messages):
        raise InvalidRequestError(
            "Prompt must contain the word 'json' in some form to use 'response_format' of type "
            "'json_object'.",
            "response_format",
        )
