"""The items of a Responses conversation: typed, refused by name, turned into messages.

Conversion is that of DeepSeek's deepseek-recipe 0.2.0: thoughts, answers and calls that follow each
other are one turn of the assistant, parts of a text are joined by a blank line, and each call is
answered before anything else is said. Differences:

- the content part `text`, Chat Completions' spelling, is read; the library refuses it;
- images and files are refused, where the library writes a placeholder into the prompt, and so are
  the items of tools that run on a server (web_search_call, custom_tool_call, ...), which it drops
  or renames: this server reads text and runs nothing;
- calls and their results keep the order of the calls; the library sorts them by call_id;
- an item_reference is looked up among the kept responses, where the library drops it;
- a reasoning item that holds nothing but encrypted content is looked up likewise and refused if it
  is not there, where the library answers as if there had been no thought;
- a conversation that ends with the assistant is refused: nothing is left to be answered;
- messages never quote a call_id;
- unknown fields are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from ingle.errors import InvalidRequestError
from ingle.server.types import shape_error

JOINT = "\n\n"

Status = Literal["in_progress", "completed", "incomplete"]
Resolve: TypeAlias = Callable[[str], dict[str, Any] | None]
"""Finds a kept item by its id."""


class Part(Struct, forbid_unknown_fields=True):
    """One part of an item's content; only text is read and nothing is ever fetched.

    annotations, logprobs, parsed: what came with a reply's text or what the openai package read in
    it, sent back; no prompt has a place for them.
    """

    type: str
    text: str | None = None
    annotations: Any = None
    logprobs: Any = None
    parsed: Any = None
    prompt_cache_breakpoint: Any = None  # a hint: everything is cached here anyway
    refusal: Any = None
    image_url: Any = None
    detail: Any = None
    file_id: Any = None
    file_url: Any = None
    file_data: Any = None
    filename: Any = None
    input_audio: Any = None


Content: TypeAlias = str | list[Part]


class MessageItem(Struct, forbid_unknown_fields=True):
    """Something said; phase is how a reply of this server labels an answer before calls."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    type: Literal["message"] = "message"
    id: str | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class Thought(Struct, forbid_unknown_fields=True):
    type: Literal["reasoning_text", "text"]
    text: str


class ReasoningItem(Struct, forbid_unknown_fields=True):
    """A thought; its summary has no place in a prompt."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: list[Any] | None = None
    content: list[Thought] | None = None
    encrypted_content: str | None = None
    status: Status | None = None


class CallItem(Struct, forbid_unknown_fields=True):
    """A call the model made; `arguments` is the JSON text as the model wrote it."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    parsed_arguments: Any = None  # the openai package's own reading of them, sent back
    id: str | None = None
    status: Status | None = None


class ResultItem(Struct, forbid_unknown_fields=True):
    """What the client's function gave; `name` is its own note."""

    type: Literal["function_call_output"]
    call_id: str
    output: Content
    id: str | None = None
    status: Status | None = None
    name: str | None = None


class ReferenceItem(Struct, forbid_unknown_fields=True):
    id: str
    type: Literal["item_reference"] = "item_reference"


Item: TypeAlias = MessageItem | ReasoningItem | CallItem | ResultItem

KINDS: dict[str, type[Struct]] = {
    "message": MessageItem,
    "reasoning": ReasoningItem,
    "function_call": CallItem,
    "function_call_output": ResultItem,
    "item_reference": ReferenceItem,
}
_ID_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
}


def read_item(value: dict[str, Any], where: str, resolve: Resolve) -> Item:
    """One item, typed and known to hold text only; InvalidRequestError names what is not."""
    kind = value.get("type")
    if kind is None:
        kind = "item_reference" if set(value) <= {"id", "type"} else "message"
        value = {**value, "type": kind}
    struct = KINDS.get(kind) if isinstance(kind, str) else None
    if struct is None:
        raise InvalidRequestError(
            f"{where}.type must be one of {', '.join(KINDS)}; nothing else is supported.",
            f"{where}.type",
        )
    try:
        item = msgspec.convert(value, struct)
    except msgspec.ValidationError as error:
        raise shape_error(str(error), where) from None
    if isinstance(item, ReferenceItem):
        return _kept(item.id, f"{where}.id", resolve)
    if isinstance(item, ReasoningItem) and item.encrypted_content and not item.content:
        return _kept(item.id or "", f"{where}.encrypted_content", resolve)
    if isinstance(item, MessageItem):
        text_of(item.content, f"{where}.content")
    elif isinstance(item, ResultItem):
        text_of(item.output, f"{where}.output")
    return item  # type: ignore[return-value]


def _kept(id_: str, where: str, resolve: Resolve) -> Item:
    value = resolve(id_)
    if value is None:
        raise InvalidRequestError(
            f"{where}: no such item can be found here. Send its content instead.", where
        )
    return read_item(value, where, lambda _: None)


def text_of(content: Content, where: str) -> str:
    """The text of a content, its parts joined; InvalidRequestError for parts of other kinds."""
    if isinstance(content, str):
        return content
    for index, part in enumerate(content):
        if part.type not in ("input_text", "output_text", "text") or part.text is None:
            raise InvalidRequestError(
                f"{where}[{index}] must be text (input_text, output_text or text): this server "
                "reads nothing else and fetches nothing.",
                f"{where}[{index}].type",
            )
    return JOINT.join(part.text or "" for part in content)


def listed(item: Item, id_: str) -> dict[str, Any]:
    """An item as GET .../input_items shows it, which is also how it is kept."""
    shown: dict[str, Any] = {"type": item.type, "id": id_, "status": item.status or "completed"}
    match item:
        case MessageItem():
            kind = "output_text" if item.role == "assistant" else "input_text"
            part: dict[str, Any] = (
                {"annotations": [], "logprobs": []} if item.role == "assistant" else {}
            )
            texts = [item.content] if isinstance(item.content, str) else _texts(item.content)
            shown["role"] = item.role
            if item.phase is not None:
                shown["phase"] = item.phase
            shown["content"] = [{"type": kind, **part, "text": text} for text in texts]
        case ReasoningItem():
            thoughts = [{"type": "reasoning_text", "text": t.text} for t in item.content or ()]
            shown |= {"summary": item.summary or [], "content": thoughts}
        case CallItem():
            shown |= {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
        case ResultItem():
            shown |= {"call_id": item.call_id, "output": text_of(item.output, "output")}
    return shown


def named(items: Sequence[Item], response: str) -> list[dict[str, Any]]:
    """Items as they are kept, each under an id of its own: the client's where it is one."""
    shown: list[dict[str, Any]] = []
    taken: set[str] = set()
    for index, item in enumerate(items):
        id_ = item.id
        if not id_ or id_ in taken:
            id_ = f"{_ID_PREFIXES[item.type]}_{response}_in{index}"
        taken.add(id_)
        shown.append(listed(item, id_))
    return shown


@dataclass
class _Turn:
    """What the assistant did between two words of others."""

    thoughts: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    calls: dict[str, CallItem] = field(default_factory=dict)
    said: bool = False

    def takes(self, item: Item) -> bool:
        """Whether the item belongs to this turn still."""
        match item:
            case ReasoningItem():
                return not self.calls and not (self.texts and _thought(item))
            case MessageItem(role="assistant"):
                return not self.calls
        return isinstance(item, CallItem)

    def add(self, item: Item) -> None:
        match item:
            case ReasoningItem():
                thought = _thought(item)
                self.thoughts += [thought] if thought else []
            case MessageItem():
                text = text_of(item.content, "content")
                self.texts += [text] if text else []
                self.said = True
            case CallItem():
                self.calls[item.call_id] = item

    def messages(self) -> Iterator[dict[str, Any]]:
        if not (self.thoughts or self.said or self.calls):
            return
        message: dict[str, Any] = {
            "role": "assistant",
            "content": JOINT.join(self.texts),
            "reasoning_content": "\n".join(self.thoughts),
        }
        if self.calls:
            message["tool_calls"] = [
                {
                    "id": call.call_id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self.calls.values()
            ]
        yield message


def as_messages(items: Sequence[Item], earlier: int = 0) -> list[dict[str, Any]]:
    """The messages that items come down to, as `ingle.prompt.messages` reads them.

    earlier: how many of the items are not the request's own; errors name the others by their place.
    Raises InvalidRequestError where calls and results do not match.
    """
    messages: list[dict[str, Any]] = []
    known: set[str] = set()
    turn, results = _Turn(), dict[str, str]()

    def close(where: str) -> None:
        """End the assistant's turn together with the results of its calls."""
        nonlocal turn, results
        if len(results) < len(turn.calls):
            raise InvalidRequestError("No tool output found for a tool call.", where)
        messages.extend(turn.messages())
        for id_ in turn.calls:
            messages.append({"role": "tool", "tool_call_id": id_, "content": results[id_]})
        turn, results = _Turn(), {}

    for index, item in enumerate(items):
        where = "previous_response_id" if index < earlier else f"input[{index - earlier}]"
        if isinstance(item, ResultItem):
            if item.call_id not in turn.calls:
                raise InvalidRequestError(
                    "No tool call found for a tool output.", f"{where}.call_id"
                )
            if item.call_id in results:
                raise InvalidRequestError("Duplicate tool output.", f"{where}.call_id")
            results[item.call_id] = text_of(item.output, f"{where}.output")
            continue
        if results or not turn.takes(item):
            close(where)
        if isinstance(item, MessageItem) and item.role != "assistant":
            role = "user" if item.role == "user" else "system"
            messages.append({"role": role, "content": text_of(item.content, where)})
            continue
        if isinstance(item, CallItem):
            if item.call_id in known:
                raise InvalidRequestError("Duplicate 'call_id'.", f"{where}.call_id")
            known.add(item.call_id)
        turn.add(item)
    close("input")
    if messages and messages[-1]["role"] == "assistant":
        raise InvalidRequestError(
            "The last item of input must not be the assistant's: nothing is left to be answered.",
            "input",
        )
    return messages


def _thought(item: ReasoningItem) -> str:
    return "\n".join(part.text for part in item.content or ())


def _texts(parts: list[Part]) -> list[str]:
    return [part.text or "" for part in parts]
