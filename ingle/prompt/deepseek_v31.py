"""Prompts of DeepSeek-V3.1 and V3.1-Terminus, with and without thinking.

    BOS system<｜User｜>Q<｜Assistant｜></think>A EOS<｜User｜>Q2<｜Assistant｜><think>

(the blanks round BOS and EOS are for reading only; without thinking the last token is
`</think>`). Earlier answers always stand behind `</think>`, their reasoning is dropped. System
texts stand first wherever they were, joined by a blank line, then the tools:

    \\n\\n## Tools\\nYou have access to the following tools:\\n\\n### NAME\\nDescription: D\\n\\n
    Parameters: {...}\\n\\nIMPORTANT: ALWAYS adhere to this exact format for tool use: ...

Calls and results, behind which the model goes on without another `<｜Assistant｜>`:

    <｜Assistant｜></think>A<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>ARGUMENTS
    <｜tool▁call▁end｜><｜tool▁call▁begin｜>...<｜tool▁calls▁end｜>EOS
    <｜tool▁output▁begin｜>R<｜tool▁output▁end｜><｜tool▁output▁begin｜>...

(its line breaks are for reading). DeepSeek supports tools without thinking only; with thinking, a
turn that answers a user opens a thought as ever, one that goes on behind results does not.

Source: chat_template of deepseek-ai/DeepSeek-V3.1 and DeepSeek-V3.1-Terminus, which do not
describe the tools of a request, and for those the model card's tool_description. Differences:

- reasoning is cut from an answer wherever it stands; the templates leave it in an answer with
  tool calls and in one behind results. Where the message has a reasoning_content, the client
  keeps reasoning apart, and a `</think>` in the content is the author's own: nothing is cut;
- an answer that follows an answer or a system text has its own `<｜Assistant｜></think>`; V3.1
  writes none there, Terminus only before calls that follow a system text;
- after a system message at the very end the prompt still opens a turn; V3.1 does not if an answer
  stood before it;
- an empty list of tool_calls counts as none; the templates close calls they never opened;
- a final answer with `prefix` is left open, with thinking behind a thought that is closed
  (`<think>R</think>A`) or, without a content, open; V3.1's template closes the turn and puts the
  content where the thought belongs;
- results are put in the order of their calls, as the format carries no ids;
- the special tokens in the description of the tools are special here, as where a template writes
  it, yet names, descriptions and parameters can hold none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ingle.prompt.deepseek_v3 import add_systems
from ingle.prompt.encoder import (
    ASSISTANT,
    BOS,
    CALL,
    CALLS,
    END_CALL,
    END_CALLS,
    END_OUTPUT,
    END_THINK,
    EOS,
    OUTPUT,
    SEP,
    THINK,
    TOOLS_START,
    USER,
    Chat,
    Encoder,
    Prompt,
    continue_turn,
)
from ingle.prompt.messages import Message, Tool, ToolCall, to_json


@dataclass(frozen=True)
class DeepSeekV31(Encoder):
    """The `<｜User｜>` format in which `</think>` opens every earlier answer."""

    name: str = "deepseek_v31"
    starts_in_reasoning: bool = True
    moves_systems: ClassVar[bool] = True

    def _write(self, prompt: Prompt, chat: Chat) -> None:
        prompt.special(BOS)
        add_systems(prompt, chat.messages)
        _describe(prompt, chat.tools)
        after_results = False
        for message in chat.messages:
            if message.role == "system":
                continue
            prompt.mark(message.index)
            if message.prefix:
                _continue(prompt, message, chat.thinking, after_results)
                return
            if message.role == "user":
                prompt.special(USER)
                prompt.text(message.content)
            elif message.role == "assistant":
                if not after_results:
                    prompt.special(ASSISTANT, END_THINK)
                prompt.text(_answer(message))
                _add_calls(prompt, message.calls)
                prompt.special(EOS)
            elif message.role == "tool":
                prompt.special(OUTPUT)
                prompt.text(message.content)
                prompt.special(END_OUTPUT)
            after_results = message.role == "tool"
        if not after_results:
            prompt.special(ASSISTANT, THINK if chat.thinking else END_THINK)


def _continue(prompt: Prompt, message: Message, thinking: bool, after_results: bool) -> None:
    if not after_results:
        prompt.special(ASSISTANT)
    elif not (thinking and message.reasoning):
        prompt.text(message.content)
        return
    continue_turn(prompt, message, thinking)


def _answer(message: Message) -> str:
    if message.reasoning is not None or END_THINK not in message.content:
        return message.content
    return message.content.split(END_THINK, 1)[1]


def _add_calls(prompt: Prompt, calls: tuple[ToolCall, ...]) -> None:
    if not calls:
        return
    prompt.special(CALLS)
    for call in calls:
        prompt.special(CALL)
        prompt.text(call.name)
        prompt.special(SEP)
        prompt.text(call.arguments)
        prompt.special(END_CALL)
    prompt.special(END_CALLS)


def _describe(prompt: Prompt, tools: list[Tool]) -> None:
    """The model card's tool_description, behind the system text."""
    if not tools:
        return
    prompt.mark(TOOLS_START)
    prompt.text("\n\n## Tools\nYou have access to the following tools:\n\n")
    for index, tool in enumerate(tools):
        parameters = to_json(tool.parameters, f"tools[{index}].function.parameters")
        prompt.text(
            f"### {tool.name}\nDescription: {tool.description}\n\nParameters: {parameters}\n\n"
        )
    prompt.text("IMPORTANT: ALWAYS adhere to this exact format for tool use:\n")
    prompt.special(CALLS, CALL)
    prompt.text("tool_call_name")
    prompt.special(SEP)
    prompt.text("tool_call_arguments")
    prompt.special(END_CALL)
    prompt.text("{{additional_tool_calls}}")
    prompt.special(END_CALLS)
    prompt.text(
        "\n\nWhere:\n"
        "- `tool_call_name` must be an exact match to one of the available tools\n"
        "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
        "Schema\n"
        "- For multiple tool calls, chain them directly without separators or spaces"
    )
