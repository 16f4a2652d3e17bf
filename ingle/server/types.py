"""The request body of Chat Completions, typed; what it holds is honoured or refused by name.

msgspec refuses NaN, infinities, "1" for 1 and true for 1. Unknown fields are an error; known fields
that this server cannot honour (tools, n > 1, ...) are an error too, unless they ask for nothing.
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ingle.errors import InvalidRequestError

MAX_MESSAGES = 4096
MAX_LOGIT_BIAS = 300
MAX_STOP_LENGTH = 1024
MAX_STOP_TOKEN_IDS = 64
MAX_SEED = 2**63 - 1
MIN_REPETITION_PENALTY = 0.01  # below, logits overflow

# Fields of the OpenAI and DeepSeek APIs that need something this server does not have yet, with
# the values that ask for nothing and are therefore accepted.
NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "n": (1,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "metadata": ({},),
    "audio": (),
    "prediction": (),
    "verbosity": (),
    "web_search_options": (),
}


Body = TypeVar("Body", bound=Struct)


class ContentPart(Struct, forbid_unknown_fields=True):
    """One part of a message; only text parts are read and nothing is ever fetched."""

    type: str
    text: str | None = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None


class Message(Struct, forbid_unknown_fields=True):
    """One turn. Reasoning sent back by a client is accepted and, as R1 asks, not encoded."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    # sent back by clients that echo a reply; anything but null is refused
    refusal: Any = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None
    tool_calls: Any = None

    def text(self, index: int) -> str:
        """The message's text; parts are joined by a newline. `index` names it in errors."""
        where = f"messages[{index}]"
        for name in ("refusal", "annotations", "audio", "function_call", "tool_calls"):
            if getattr(self, name) not in (None, []):
                raise InvalidRequestError(f"{where}.{name} is not supported.", f"{where}.{name}")
        if self.content is None:
            raise InvalidRequestError(f"{where}.content must be set.", f"{where}.content")
        if isinstance(self.content, str):
            return self.content
        texts: list[str] = []
        for part in self.content:
            if part.type != "text" or part.text is None:
                raise InvalidRequestError(
                    f"{where}.content takes text parts only; files and URLs are not fetched.",
                    f"{where}.content",
                )
            texts.append(part.text)
        return "\n".join(texts)


class StreamOptions(Struct, forbid_unknown_fields=True):
    include_usage: bool = False


class Thinking(Struct, forbid_unknown_fields=True):
    type: Literal["enabled", "disabled"] = "enabled"


class ChatRequest(Struct, forbid_unknown_fields=True):
    """Body of POST /v1/chat/completions. UNSET or null: the model's own default."""

    messages: list[Message]
    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    thinking: Thinking | None = None
    reasoning_effort: str | None = None
    user: str | None = None  # accepted without effect, as at DeepSeek: it asks for none
    tools: Any | UnsetType = UNSET
    tool_choice: Any | UnsetType = UNSET
    parallel_tool_calls: Any | UnsetType = UNSET
    functions: Any | UnsetType = UNSET
    function_call: Any | UnsetType = UNSET
    n: Any | UnsetType = UNSET
    response_format: Any | UnsetType = UNSET
    modalities: Any | UnsetType = UNSET
    store: Any | UnsetType = UNSET
    service_tier: Any | UnsetType = UNSET
    metadata: Any | UnsetType = UNSET
    audio: Any | UnsetType = UNSET
    prediction: Any | UnsetType = UNSET
    verbosity: Any | UnsetType = UNSET
    web_search_options: Any | UnsetType = UNSET

    @property
    def wants_thinking(self) -> bool:
        """DeepSeek's two switches; thinking is on unless one of them turns it off."""
        disabled = self.thinking is not None and self.thinking.type == "disabled"
        return not disabled and self.reasoning_effort != "none"

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


def decode(body: bytes, kind: type[Body]) -> Body:
    """Parse a body as a type; InvalidRequestError names the first field that does not fit it."""
    try:
        return msgspec.json.decode(body, type=kind)
    except RecursionError:
        raise InvalidRequestError("The JSON is nested too deeply.") from None
    except msgspec.ValidationError as error:
        raise _shape_error(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequestError("The body is not valid JSON in UTF-8.") from None


def decode_chat(body: bytes) -> ChatRequest:
    """Parse and check a body; InvalidRequestError names the first offending field."""
    request = decode(body, ChatRequest)
    _refuse_unsupported(request)
    _check_fields(request)
    return request


def _shape_error(message: str) -> InvalidRequestError:
    """msgspec's sentence with the path as `param`; what a client invented is never quoted whole."""
    path = re.search(r"`\$\.?([^`]*)`$", message)
    where = path.group(1) if path else ""
    named = re.search(r"(?:unknown|required) field `([\w-]{1,64})`", message)
    if message.startswith("Invalid enum value"):  # quotes the value
        message = f"`{where}` is not one of the values allowed"
    elif "unknown field" in message and not named:  # quotes a name that is no field name at all
        message = "Object contains an unknown field"
    param = ".".join(part for part in (where, named.group(1) if named else "") if part) or None
    return InvalidRequestError(message + ".", param)


def _refuse_unsupported(request: ChatRequest) -> None:
    for name, neutral in NEUTRAL_VALUES.items():
        value = getattr(request, name)
        if value is UNSET or value is None:
            continue
        if not any(type(value) is type(v) and value == v for v in neutral):
            raise InvalidRequestError(f"{name} is not supported with this value.", name)
    if request.reasoning_effort not in (None, "none"):
        raise InvalidRequestError(
            "reasoning_effort is not supported, except 'none' for no thinking.", "reasoning_effort"
        )


def _check_fields(request: ChatRequest) -> None:
    """What neither the types nor SamplingParams check."""
    if not 1 <= len(request.messages) <= MAX_MESSAGES:
        raise InvalidRequestError(f"messages takes 1 to {MAX_MESSAGES} messages.", "messages")
    if request.stream_options is not None and not request.stream:
        raise InvalidRequestError("stream_options needs stream to be true.", "stream_options")
    if request.top_logprobs is not None and not request.logprobs:
        raise InvalidRequestError("top_logprobs needs logprobs to be true.", "top_logprobs")
    if request.top_logprobs is not None and not 0 <= request.top_logprobs <= 20:
        raise InvalidRequestError("top_logprobs must lie in [0, 20].", "top_logprobs")
    penalty = request.repetition_penalty
    if penalty is not None and penalty < MIN_REPETITION_PENALTY:
        raise InvalidRequestError(
            f"repetition_penalty must lie in [{MIN_REPETITION_PENALTY}, 10].", "repetition_penalty"
        )
    if request.seed is not None and not 0 <= request.seed <= MAX_SEED:
        raise InvalidRequestError(f"seed must lie in [0, {MAX_SEED}].", "seed")
    if len(request.logit_bias or ()) > MAX_LOGIT_BIAS:
        raise InvalidRequestError(f"logit_bias takes {MAX_LOGIT_BIAS} tokens.", "logit_bias")
    if len(request.stop_token_ids or ()) > MAX_STOP_TOKEN_IDS:
        raise InvalidRequestError(
            f"stop_token_ids takes {MAX_STOP_TOKEN_IDS} ids.", "stop_token_ids"
        )
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if any(len(stop) > MAX_STOP_LENGTH for stop in stops):
        raise InvalidRequestError(f"A stop string takes {MAX_STOP_LENGTH} characters.", "stop")
