"""Prompts of DeepSeek-V3.2 and V3.2-Speciale (V3.2-Exp still has the template of V3.1).

    BOS system<｜User｜>Q<｜Assistant｜></think>A EOS<｜User｜>Q2<｜Assistant｜><think>

(the blanks round BOS and EOS are for reading only; without thinking the last token is
`</think>`). System texts stay in their place. The tools and the format of the answer follow the
first, or stand at the start. Calls follow the content of their turn, see `dsml`, and results
follow the calls without a role token; the model goes on behind them without another
`<｜Assistant｜>`, thinking again:

    ...A\\n\\n<｜DSML｜function_calls>...EOS\\n\\n<function_results>\\n<result>R1</result>\\n
    <result>R2</result>\\n</function_results>\\n\\n<think>R</think>A EOS

(its line breaks are for reading). Reasoning is kept behind the last user message only, which is
what a loop of calls is. The tags of results are ordinary text, and so are those of calls where
the vocabulary has no `｜DSML｜`: the format has no means against a message that spells them out.

Source: deepseek-ai/DeepSeek-V3.2, encoding/encoding_dsv32.py. Differences from it:

- a system text behind a user message or results stands before the token that opens the model's
  turn; DeepSeek's encoder writes it into the thought. Behind one at the very end, and after an
  answer, a turn is opened all the same;
- an answer that follows an answer or a system text has its own `<｜Assistant｜>`;
- an answer behind the last user message with neither reasoning nor calls has an empty thought;
  DeepSeek's encoder stops there;
- arguments that are no JSON object are written as `dsml` says; DeepSeek's encoder stops there;
- JSON_OBJECT is written as its own schema, as in V4.1; V3.2 has no words for it;
- developer counts as system; there it is a user's turn with a heading of its own;
- results are put in the order of their calls, as the format carries no ids;
- a final answer with `prefix` is left open behind its thought or, without a content, in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingle.prompt.dsml import V32_TAGS, add_calls, add_format_text, describe_response
from ingle.prompt.encoder import (
    ASSISTANT,
    BOS,
    END_THINK,
    EOS,
    THINK,
    TOOLS_START,
    USER,
    Chat,
    Encoder,
    Prompt,
    continue_turn,
)
from ingle.prompt.messages import Tool, to_json

_TOOLS = """\
## Tools
You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<｜DSML｜function_calls>" block like the following as part \
of your reply to the user:
<｜DSML｜function_calls>
<｜DSML｜invoke name="$FUNCTION_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$FUNCTION_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜function_calls>
String and scalar parameters should be specified as is without any escaping or quotes, while lists \
and objects should use JSON format. The "string" attribute should be set to "true" for string type \
parameters and "false" for other types (numbers, booleans, arrays, objects).
If the thinking_mode is enabled, then after function results you should strongly consider \
outputting a thinking block. Here is an example:
<｜DSML｜function_calls>
...
</｜DSML｜function_calls>
<function_results>
...
</function_results>
<think>...thinking about results</think>
Here are the functions available in JSONSchema format:
<functions>
"""


@dataclass(frozen=True)
class DeepSeekV32(Encoder):
    """The format with DSML calls in which results follow without a role token."""

    name: str = "deepseek_v32"
    starts_in_reasoning: bool = True

    def _write(self, prompt: Prompt, chat: Chat) -> None:
        users = [place for place, m in enumerate(chat.messages) if m.role == "user"]
        last_user = users[-1] if users else -1
        prompt.special(BOS)
        if chat.messages[0].role != "system":
            _add_tools(prompt, chat)
        owed = ""  # the role that asked for the turn which is not yet opened
        after_result = False
        for place, message in enumerate(chat.messages):
            role = message.role
            if after_result and role != "tool":
                prompt.text("\n</function_results>\n\n")
            if owed and role == "user":
                _open_turn(prompt, owed, END_THINK)
            prompt.mark(message.index)
            if role == "assistant":
                inside = chat.thinking and place > last_user
                if message.prefix:
                    _open_turn(prompt, owed)
                    continue_turn(prompt, message, chat.thinking)
                    return
                _open_turn(prompt, owed, THINK if inside else END_THINK)
                if inside:
                    prompt.text(message.reasoning or "")
                    prompt.special(END_THINK)
                prompt.text(message.content)
                add_calls(prompt, message.calls, V32_TAGS)
                prompt.special(EOS)
                owed = ""
            elif role == "system":
                prompt.text(message.content)
                if place == 0:
                    _add_tools(prompt, chat)
            elif role == "user":
                prompt.special(USER)
                prompt.text(message.content)
                owed = role
            else:
                prompt.text("" if after_result else "\n\n<function_results>")
                prompt.text(f"\n<result>{message.content}</result>")
                owed = role
            after_result = role == "tool"
        if after_result:
            prompt.text("\n</function_results>\n\n")
        _open_turn(prompt, owed, THINK if chat.thinking else END_THINK)


def _open_turn(prompt: Prompt, owed: str, *tokens: str) -> None:
    """Start the model's turn; behind results it goes on in the one that made the calls."""
    if owed != "tool":
        prompt.special(ASSISTANT)
    prompt.special(*tokens)


def _add_tools(prompt: Prompt, chat: Chat) -> None:
    _describe(prompt, chat.tools)
    describe_response(prompt, chat.response_schema)


def _describe(prompt: Prompt, tools: list[Tool]) -> None:
    """The tools of the request, as they were given."""
    if not tools:
        return
    prompt.mark(TOOLS_START)
    prompt.text("\n\n")
    add_format_text(prompt, _TOOLS, V32_TAGS)
    for index, tool in enumerate(tools):
        prompt.text(to_json(tool.source["function"], f"tools[{index}].function"))
        prompt.text("\n")
    prompt.text("</functions>\n")
