"""Prompts of DeepSeek-V2.5, V3 and V3-0324, and the turns that R1 shares with them.

    BOS system<｜User｜>Q<｜Assistant｜>A EOS<｜User｜>Q2<｜Assistant｜>

(the blanks round BOS and EOS are for reading only). System texts stand first wherever they were,
joined by a blank line. Tool calls follow the content of their turn, results follow the calls, and
the model goes on behind the results without another `<｜Assistant｜>`:

    <｜Assistant｜>A<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\\n
    ```json\\nARGUMENTS\\n```<｜tool▁call▁end｜>\\n<｜tool▁call▁begin｜>...<｜tool▁calls▁end｜>EOS
    <｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>R<｜tool▁output▁end｜>\\n
    <｜tool▁output▁begin｜>...<｜tool▁outputs▁end｜>A EOS

(its line breaks are for reading, except where \\n is written). Source: chat_template of
deepseek-ai/DeepSeek-V3-0324, DeepSeek-V3 and DeepSeek-V2.5. They do not describe the tools of a
request; the text for that, `_describe`, is the one of vLLM's tool_chat_template_deepseekr1.jinja,
whose special tokens are special here, too. Differences from the templates:

- V2.5 keeps only the last system text, with eight blanks before BOS for each; all are kept here,
  without blanks;
- V2.5 and V3 never close a single call, drop the content beside calls and, in a second round of
  calls, the opening tokens; V3-0324's form, which mends this, is used for all;
- a user message right after results: the templates leave the results open; they are closed here;
- V3-0324 writes `<｜Assistant｜>` after every user message and before no answer. So it leaves an
  empty turn between two user messages and none before an answer that follows an answer or a
  system text; here each answer has its own and nothing else has one;
- an empty list of tool_calls counts as none; the template closes calls it never opened;
- content of null beside calls is an empty text;
- results are put in the order of their calls, as the format carries no ids;
- a final answer with `prefix` is left open; the templates close it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ingle.prompt.encoder import (
    ASSISTANT,
    BOS,
    CALL,
    CALLS,
    END_CALL,
    END_CALLS,
    END_OUTPUT,
    END_OUTPUTS,
    END_THINK,
    EOS,
    OUTPUT,
    OUTPUTS,
    SEP,
    TOOLS_START,
    USER,
    Chat,
    Encoder,
    Prompt,
    continue_answer,
)
from ingle.prompt.messages import Message, Tool, ToolCall, refuse_tools, to_json


@dataclass(frozen=True)
class DeepSeekV3(Encoder):
    """The `<｜User｜>` format without thoughts."""

    name: str = "deepseek_v3"
    starts_in_reasoning: bool = False
    moves_systems: ClassVar[bool] = True

    def _write(self, prompt: Prompt, chat: Chat) -> None:
        answers = add_turns(prompt, chat, drop_thoughts=False)
        if answers:
            prompt.special(ASSISTANT)
        if chat.messages[-1].prefix:
            prompt.text(continue_answer(chat.messages[-1]))


def add_turns(prompt: Prompt, chat: Chat, drop_thoughts: bool) -> bool:
    """Write everything up to the turn to write; whether that turn needs an `<｜Assistant｜>`.

    drop_thoughts: cut what stands before the last `</think>` of earlier answers. A `prefix`
    message is marked but left to the caller. Raises InvalidRequestError for any use of tools
    where the tokenizer has no tokens for them (the R1 distills).
    """
    if prompt.tokenizer.find_special(CALLS) is None:
        refuse_tools(chat.messages, chat.tools, "This model's vocabulary")
    prompt.special(BOS)
    add_systems(prompt, chat.messages)
    _describe(prompt, chat.tools)
    after_results = False
    for message in chat.messages:
        if message.role == "system":
            continue
        if after_results and message.role != "tool":
            prompt.special(END_OUTPUTS)
        prompt.mark(message.index)
        if message.prefix:
            return not after_results
        if message.role == "tool":
            if after_results:
                prompt.text("\n")
            else:
                prompt.special(OUTPUTS)
            prompt.special(OUTPUT)
            prompt.text(message.content)
            prompt.special(END_OUTPUT)
        elif message.role == "user":
            prompt.special(USER)
            prompt.text(message.content)
        else:
            if not after_results:
                prompt.special(ASSISTANT)
            prompt.text(_answer(message) if drop_thoughts else message.content)
            _add_calls(prompt, message.calls)
            prompt.special(EOS)
        after_results = message.role == "tool"
    if after_results:
        prompt.special(END_OUTPUTS)
    return not after_results


def add_systems(prompt: Prompt, messages: list[Message]) -> None:
    """The system texts, wherever they were, joined by a blank line."""
    for place, message in enumerate(m for m in messages if m.role == "system"):
        prompt.text("\n\n" if place else "")
        prompt.mark(message.index)
        prompt.text(message.content)


def _answer(message: Message) -> str:
    """The answer alone; where the client keeps reasoning apart, the content is only that."""
    apart = message.reasoning is not None
    return message.content if apart else message.content.split(END_THINK)[-1]


def _add_calls(prompt: Prompt, calls: tuple[ToolCall, ...]) -> None:
    if not calls:
        return
    prompt.special(CALLS)
    for index, call in enumerate(calls):
        if index:
            prompt.text("\n")
        prompt.special(CALL)
        prompt.text("function")
        prompt.special(SEP)
        prompt.text(f"{call.name}\n```json\n{call.arguments}\n```")
        prompt.special(END_CALL)
    prompt.special(END_CALLS)


def _describe(prompt: Prompt, tools: list[Tool]) -> None:
    """The tools of the request and how to call them, behind the system text."""
    if not tools:
        return
    prompt.mark(TOOLS_START)
    prompt.text(
        "\n\nYou are a helpful assistant with tool calling capabilities. When a tool call is "
        "needed, you MUST use the following format to issue the call:\n"
    )
    prompt.special(CALLS, CALL)
    prompt.text("function")
    prompt.special(SEP)
    prompt.text('FUNCTION_NAME\n```json\n{"param1": "value1", "param2": "value2"}\n```')
    prompt.special(END_CALL, END_CALLS)
    prompt.text(
        "\n\nMake sure the JSON is valid.## Tools\n\n### Function\n\n"
        "You have the following functions available:\n\n"
    )
    for index, tool in enumerate(tools):
        prompt.text(f"\n```json\n{to_json(tool.source, f'tools[{index}]')}\n```\n")
