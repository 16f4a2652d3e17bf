"""Prompts of DeepSeek-V4.1 (V4.1-Flash).

    BOS<｜System｜>effort system<｜User｜>Q<｜Assistant｜></think>A EOS<｜System｜>system2
    <｜User｜>Q2<｜Assistant｜><think>

(the blanks round effort and EOS and the line break are for reading only). Turns, results and
reasoning are as in `deepseek_v4`; what differs is the opening. `<｜System｜>` is a special token,
left out where nothing follows it: no effort (that is, without thinking), no system message at the
very start, no tools and no format of the answer. Other system messages stay in their place behind
a `<｜System｜>` each. Empty ones are left out, and of neighbouring reminders all but the first. The
effort is a number: 50 for low, 75 for high, 100 for max, or one that the caller chose.

Source: DeepSeek's library deepseek-recipe 0.2.0, model DeepSeek-V4.1-Flash. Differences from it
are those of `deepseek_v4` (here the library writes 1e-07, too), and:

- a number from 1 to 100 as effort, as in DeepSeek's own encoder beside the weights; the library
  takes names only. That encoder's numbers for the names (25, 50, 75 for xhigh) are not used;
- images are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

from ingle.errors import InvalidRequestError
from ingle.prompt.deepseek_v4 import add_turns, effort_level
from ingle.prompt.dsml import V41_TAGS, describe_response, describe_tools
from ingle.prompt.encoder import BOS, SYSTEM, Chat, Encoder, Prompt
from ingle.prompt.messages import Message, read_messages

_NUMBERS = {"low": 50, "high": 75, "max": 100}


@dataclass(frozen=True)
class DeepSeekV41(Encoder):
    """V4's format with `<｜System｜>` and an effort in numbers."""

    name: str = "deepseek_v41"
    starts_in_reasoning: bool = True
    has_effort: ClassVar[bool] = True

    def read(self, messages: Sequence[Mapping[str, Any]]) -> list[Message]:
        return read_messages(messages, reminders=True, joint="\n\n")

    def _write(self, prompt: Prompt, chat: Chat) -> None:
        effort = (
            f"Reasoning Effort: {_number(chat.effort)} "
            "(range 1-100, the higher the value, the more thorough the reasoning)\n\n"
        )
        turns = list(_turns(chat.messages))
        lead = turns.pop(0) if turns and turns[0].role == "system" else None
        prompt.special(BOS)
        if chat.thinking or lead or chat.tools or chat.response_schema is not None:
            prompt.special(SYSTEM)
        prompt.text(effort if chat.thinking else "")
        if lead:
            prompt.mark(lead.index)
            prompt.text(lead.content)
        describe_tools(prompt, chat.tools, V41_TAGS)
        describe_response(prompt, chat.response_schema)
        add_turns(prompt, chat, turns, V41_TAGS)


def _number(effort: str | int | None) -> int:
    if isinstance(effort, str) or effort is None:
        return _NUMBERS[effort_level(effort)]
    if isinstance(effort, bool) or not 1 <= effort <= 100:
        raise InvalidRequestError(
            "reasoning_effort as a number must be from 1 to 100.", "reasoning_effort"
        )
    return effort


def _turns(messages: list[Message]) -> Iterator[Message]:
    """Without empty system messages, and the first of neighbouring reminders."""
    spoken = (message for message in messages if message.content or message.role != "system")
    for role, run in groupby(spoken, key=lambda message: message.role):
        if role == "latest_reminder":
            yield next(run)
        else:
            yield from run
