"""Prompts of DeepSeek-Coder v1 (instruct).

    BOS system### Instruction:\\nQ\\n### Response:\\nA\\n<|EOT|>\\n
    ### Instruction:\\nQ2\\n### Response:\\n

(the blank after BOS and the line break are for reading only). Without a system message DeepSeek's
own text, DEFAULT and a newline, stands first; a system message of the request is written without
any newline of its own. The headings are ordinary text, so a message that spells one out looks to
the model like a turn: the format has no means against it.

Source: chat_template of deepseek-ai/deepseek-coder-33b-instruct (the same for 1.3b, 6.7b and 7b).
Differences from it:

- tools, tool calls and tool results are refused; the template writes a tool's result as if the
  assistant had said it;
- an assistant message without content is refused; the template fails on it;
- a final assistant message is refused, or with `prefix` goes on behind "### Response:\\nA"; the
  template closes it and opens another turn.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingle.prompt.encoder import BOS, Chat, Encoder, Prompt, continue_answer
from ingle.prompt.messages import refuse_tools

EOT = "<|EOT|>"
DEFAULT = (
    "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by "
    "Deepseek Company, and you only answer questions related to computer science. For politically "
    "sensitive questions, security and privacy issues, and other non-computer science questions, "
    "you will refuse to answer"
)


@dataclass(frozen=True)
class DeepSeekCoder(Encoder):
    """The "### Instruction:" format; it has neither thoughts nor tools."""

    name: str = "deepseek_coder"
    starts_in_reasoning: bool = False

    def _write(self, prompt: Prompt, chat: Chat) -> None:
        refuse_tools(chat.messages, chat.tools)
        prompt.special(BOS)
        if not any(message.role == "system" for message in chat.messages):
            prompt.text(f"{DEFAULT}\n")
        for message in chat.messages:
            prompt.mark(message.index)
            if message.prefix:
                prompt.text(f"### Response:\n{continue_answer(message)}")
                return
            if message.role == "assistant":
                prompt.text(f"### Response:\n{message.content}\n")
                prompt.special(EOT)
                prompt.text("\n")
            elif message.role == "user":
                prompt.text(f"### Instruction:\n{message.content}\n")
            else:
                prompt.text(message.content)
        prompt.text("### Response:\n")
