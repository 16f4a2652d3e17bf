"""What the request bodies of all dialects share: strict decoding and the sampling fields.

msgspec refuses NaN, infinities, "1" for 1 and true for 1. Unknown fields are an error; known fields
that this server cannot honour are an error too, unless they ask for nothing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct

from ingle.engine.request import SamplingParams
from ingle.errors import InvalidRequestError

MAX_LOGIT_BIAS = 300
MAX_STOP_LENGTH = 1024
MAX_STOPS = 16
MAX_STOP_TOKEN_IDS = 64
MAX_SEED = 2**63 - 1
MAX_CHOICES = 8
MAX_USER_LENGTH = 512
MIN_REPETITION_PENALTY = 0.01  # below, logits overflow

_PLAIN_FIELDS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "seed",
)

_RANGES = {"temperature": (0, 2), "presence_penalty": (-2, 2), "frequency_penalty": (-2, 2)}

Body = TypeVar("Body", bound=Struct)


class StreamOptions(Struct, forbid_unknown_fields=True):
    """include_usage: send a null `usage` in every chunk before the last, which always has it."""

    include_usage: bool = False
    include_obfuscation: bool = False  # padding against traffic analysis: nothing to hide locally


class Sampling(Struct, forbid_unknown_fields=True, kw_only=True):
    """How to choose tokens and whose request it is; null or absent: the model's own default.

    user, user_id, cache_salt: texts that separate the prefix cache of one end user from another's.
    priority: lower goes first. prompt_cache_key, safety_identifier: hints for a fleet of servers,
    without meaning on one machine.
    """

    model: str | None = None
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
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    user_id: str | None = None
    cache_salt: str | None = None
    priority: int | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None

    @property
    def choices(self) -> int:
        return 1 if self.n is None else self.n

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def cache_owner(self) -> str:
        """What separates this end user's prefix cache from others' under the same key."""
        return "\0".join(name or "" for name in (self.user, self.user_id, self.cache_salt))


def decode(body: bytes, kind: type[Body]) -> Body:
    """Parse a body as a type; InvalidRequestError names the first field that does not fit it."""
    try:
        return msgspec.json.decode(body, type=kind)
    except RecursionError:
        raise InvalidRequestError("The JSON is nested too deeply.") from None
    except msgspec.ValidationError as error:
        raise shape_error(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequestError("The body is not valid JSON in UTF-8.") from None


def shape_error(message: str, within: str = "") -> InvalidRequestError:
    """msgspec's sentence with the path as `param`; what a client invented is never quoted whole.

    within: where in the body the value stood that was converted on its own.
    """
    path = re.search(r"`\$\.?([^`]*)`$", message)
    where = ".".join(part for part in (within, path.group(1) if path else "") if part)
    if within:
        message = (
            message[: path.start()] + f"`$.{where}`" if path else f"{message} - at `$.{where}`"
        )
    named = re.search(r"(?:unknown|required) field `([\w-]{1,64})`", message)
    if message.startswith("Invalid enum value"):  # quotes the value
        message = f"`{where}` is not one of the values allowed"
    elif "unknown field" in message and not named:  # quotes a name that is no field name at all
        message = "Object contains an unknown field"
    param = ".".join(part for part in (where, named.group(1) if named else "") if part) or None
    return InvalidRequestError(message + ".", param)


def refuse_values(request: Struct, neutral_values: dict[str, tuple[Any, ...]]) -> None:
    """Raise InvalidRequestError for a field whose value asks for what is not there.

    neutral_values: for each such field the values that ask for nothing; null always does.
    """
    for name, neutral in neutral_values.items():
        value = getattr(request, name)
        if value is UNSET or value is None:
            continue
        if not any(type(value) is type(known) and value == known for known in neutral):
            raise InvalidRequestError(f"{name} is not supported with this value.", name)


def check_sampling(request: Sampling) -> None:
    """Bounds that neither the types nor SamplingParams check; texts are DeepSeek's where it has
    one."""
    if request.stream_options is not None and not request.stream:
        raise InvalidRequestError(
            "stream_options should be set along with stream = true", "stream_options"
        )
    if not 1 <= request.choices <= MAX_CHOICES:
        raise InvalidRequestError(f"n must lie in [1, {MAX_CHOICES}].", "n")
    penalty = request.repetition_penalty
    if penalty is not None and penalty < MIN_REPETITION_PENALTY:
        raise InvalidRequestError(
            f"repetition_penalty must lie in [{MIN_REPETITION_PENALTY}, 10].", "repetition_penalty"
        )
    if request.seed is not None and not 0 <= request.seed <= MAX_SEED:
        raise InvalidRequestError(
            "Invalid seed value, the valid range of seed is [0, 2^63)", "seed"
        )
    if request.priority is not None and abs(request.priority) > 1000:
        raise InvalidRequestError("priority must lie in [-1000, 1000].", "priority")
    if len(request.logit_bias or ()) > MAX_LOGIT_BIAS:
        raise InvalidRequestError(f"logit_bias takes {MAX_LOGIT_BIAS} tokens.", "logit_bias")
    if len(request.stop_token_ids or ()) > MAX_STOP_TOKEN_IDS:
        raise InvalidRequestError(
            f"stop_token_ids takes {MAX_STOP_TOKEN_IDS} ids.", "stop_token_ids"
        )
    if len(request.cache_owner) > MAX_USER_LENGTH:
        raise InvalidRequestError(
            f"user, user_id and cache_salt take {MAX_USER_LENGTH} characters together.", "user"
        )
    for name, (low, high) in _RANGES.items():
        value = getattr(request, name)
        if value is not None and not low <= value <= high:
            raise InvalidRequestError(
                f"Invalid {name} value, the valid range of {name} is [{low}, {high}]", name
            )
    if request.top_p is not None and not 0 < request.top_p <= 1:
        raise InvalidRequestError(
            "Invalid top_p value, the valid range of top_p is (0, 1.0]", "top_p"
        )
    if request.stop == "":
        raise empty_stop("stop", "stop")
    check_stops(request.stops)


def check_stops(stops: tuple[str, ...], name: str = "stop") -> None:
    """DeepSeek's rules for stop strings, in its words."""
    if len(stops) > MAX_STOPS:
        raise InvalidRequestError(f"Stop string array too long: {len(stops)}", name)
    for index, stop in enumerate(stops):
        if not stop:
            raise empty_stop(f"{name}[{index}]", name)
        if len(stop) > MAX_STOP_LENGTH:
            raise InvalidRequestError(f"A stop string takes {MAX_STOP_LENGTH} characters.", name)


def empty_stop(where: str, name: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Invalid '{where}': empty string. Expected a string with minimum length 1, but got an "
        "empty string instead.",
        name,
    )


def sampling_params(
    request: Sampling, defaults: SamplingParams, vocab: int, **further: Any
) -> SamplingParams:
    """The request's sampling over the model's defaults; InvalidRequestError names a bad field.

    further: what is named differently from dialect to dialect (max_tokens, logprobs, ...); None
    leaves the default.
    """
    given: dict[str, Any] = {
        name: value for name in _PLAIN_FIELDS if (value := getattr(request, name)) is not None
    }
    given |= {name: value for name, value in further.items() if value is not None}
    if "top_k" in given:
        given["top_k"] = min(given["top_k"], vocab)
    if request.stops:
        given["stop"] = request.stops
    if request.stop_token_ids is not None:
        given["stop_token_ids"] = tuple(request.stop_token_ids)
    for name in ("logit_bias", "stop_token_ids"):
        if any(not 0 <= token < vocab for token in given.get(name, ())):
            raise InvalidRequestError(f"{name} holds an id outside the vocabulary.", name)
    return replace(defaults, **given)
