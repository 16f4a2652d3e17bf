"""Prompts of DeepSeek-V4 (V4-Pro-0813, V4-Flash-0731), and the turns that V4.1 shares with it.

    BOS effort system<｜User｜>Q<｜Assistant｜></think>A EOS<｜User｜>Q2<｜Assistant｜><think>

(the blanks round BOS, effort and EOS are for reading only; without thinking there is no effort
and the last token is `</think>`). Neighbouring user messages are one turn, its parts separated by
a blank line, and so are results, in the order of their calls:

    <｜User｜><tool_result>R1</tool_result>\\n\\n<tool_result>R2</tool_result>\\n\\nQ<｜Assistant｜>

In a request without tools earlier answers stand behind `</think>` and lose their reasoning; with
tools and with thinking all of them keep it: `<｜Assistant｜><think>R</think>A`, empty where the
client sent none. System texts stand first wherever they were, joined by a blank line, then the
tools, then the format of the answer. `dsml` has the texts for tools and calls.

Source: DeepSeek's library deepseek-recipe 0.2.0, model DeepSeek-V4-Pro. Like it, the encoding
never makes special tokens of what a request says, and those in the description of the tools are
special. Differences from it:

- a final assistant message without `prefix` is refused; the library opens another turn after it;
- `prefix` on a final message of a user or of the system is refused; the library ignores it. With
  `prefix`, content may be null beside a reasoning, and tools are allowed: both refused there;
- developer counts as system and an empty list of tool_calls as none: both refused there;
- numbers are written as Python does (1e-07, all digits of a long integer), as in DeepSeek's own
  encoding_dsv4.py; the library writes 1e-7 and makes long integers floats;
- a lone surrogate escaped in arguments becomes a replacement character in its place; the library
  takes the whole arguments for no JSON. Nesting deeper than 127 is read as far as Python can;
- the parameters of a `strict` tool are written as given; the library adds what is missing;
- the start of a call that `tool_choice` demands is left to the grammar;
- the spelling `reasoning` is read, too.

Differences of the library from encoding_dsv4.py, followed here: each answer has its own
`<｜Assistant｜>`, a call without arguments no empty line, and high is the default effort.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

from ingle.errors import InvalidRequestError
from ingle.prompt.deepseek_v3 import add_systems
from ingle.prompt.dsml import V4_TAGS, Tags, add_calls, describe_response, describe_tools
from ingle.prompt.encoder import (
    ASSISTANT,
    BOS,
    END_THINK,
    EOS,
    JSON_OBJECT,
    LATEST_REMINDER,
    SYSTEM,
    THINK,
    USER,
    Chat,
    Encoder,
    Prompt,
    continue_turn,
)
from ingle.prompt.messages import Message, read_messages

LEVELS = {
    "minimal": "low",
    "low": "low",
    "medium": "high",
    "high": "high",
    "xhigh": "high",
    "max": "max",
    "ultra": "max",
}
EFFORT_TEXTS = {
    "low": "",
    "high": (
        "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
        "You MUST be very thorough in your thinking and comprehensively decompose the problem to "
        "resolve the root cause, rigorously stress-testing your logic against all potential "
        "paths, edge cases, and adversarial scenarios.\n"
        "Explicitly write out your entire deliberation process, documenting every intermediate "
        "step, considered alternative, and rejected hypothesis to ensure absolutely no assumption "
        "is left unchecked.\n\n"
    ),
    "max": (
        "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\n"
        "You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: "
        "exhaustively decompose the problem into its most fundamental components, trace every "
        "causal chain to its root, and resolve the underlying cause rather than any surface "
        "symptom.\n"
        "Do not stop reasoning until you have independently verified the solution from multiple "
        "angles and are certain that no assumption remains unchecked and no error remains "
        "undiscovered.\n\n"
    ),
}
_JSON_OBJECT_TEXT = (
    "\n\nYou are a helpful assistant designed to output JSON.\n## Response Format:\n\n"
    "Reply with JSON object ONLY."
)


@dataclass(frozen=True)
class DeepSeekV4(Encoder):
    """The format with DSML calls in which results are part of a user's turn."""

    name: str = "deepseek_v4"
    starts_in_reasoning: bool = True
    moves_systems: ClassVar[bool] = True
    has_effort: ClassVar[bool] = True

    def read(self, messages: Sequence[Mapping[str, Any]]) -> list[Message]:
        return read_messages(messages, reminders=True, joint="\n\n")

    def _write(self, prompt: Prompt, chat: Chat) -> None:
        effort = EFFORT_TEXTS[effort_level(chat.effort)]
        prompt.special(BOS)
        prompt.text(effort if chat.thinking else "")
        add_systems(prompt, [message for message in chat.messages if message.content])
        describe_tools(prompt, chat.tools, V4_TAGS)
        if chat.response_schema == JSON_OBJECT:
            prompt.text(_JSON_OBJECT_TEXT)
        else:
            describe_response(prompt, chat.response_schema)
        add_turns(prompt, chat, _turns(chat.messages), V4_TAGS)


def effort_level(effort: str | int | None) -> str:
    """low, high or max; InvalidRequestError for a name that is none of an effort."""
    level = LEVELS.get(effort) if isinstance(effort, str) else None
    if effort is None:
        return "high"
    if level is None:
        raise InvalidRequestError(
            f"reasoning_effort must be one of {', '.join(LEVELS)}.", "reasoning_effort"
        )
    return level


def add_turns(prompt: Prompt, chat: Chat, turns: Iterable[Message], tags: Tags) -> None:
    """Write the messages behind the opening and start the model's turn, if none is to continue."""
    keeps_reasoning = chat.thinking and bool(chat.tools)
    in_user_turn = False
    for message in turns:
        prompt.mark(message.index)
        users = message.role in ("user", "tool")
        if users and in_user_turn:
            prompt.text("\n\n")
        elif users:
            prompt.special(USER)
        in_user_turn = users
        if message.role == "assistant":
            prompt.special(ASSISTANT)
            if message.prefix:
                continue_turn(prompt, message, chat.thinking)
                return
            if keeps_reasoning:
                prompt.special(THINK)
                prompt.text(message.reasoning or "")
            prompt.special(END_THINK)
            prompt.text(message.content)
            add_calls(prompt, message.calls, tags)
            prompt.special(EOS)
        elif message.role == "tool":
            prompt.text(f"<tool_result>{message.content}</tool_result>")
        else:
            if message.role != "user":
                prompt.special(SYSTEM if message.role == "system" else LATEST_REMINDER)
            prompt.text(message.content)
    prompt.special(ASSISTANT, THINK if chat.thinking else END_THINK)


def _turns(messages: list[Message]) -> Iterator[Message]:
    """All but the system's, without empty user messages beside other ones."""
    others = (message for message in messages if message.role != "system")
    for role, group in groupby(others, key=lambda message: message.role):
        run = list(group)
        if role == "user":
            run = [message for message in run if message.content] or run[:1]
        yield from run
