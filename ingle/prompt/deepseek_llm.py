"""Prompts of DeepSeek-LLM, DeepSeekMoE-16B, V2, V2-Lite and Coder-V2.

    BOS system\\n\\nUser: Q\\n\\nAssistant: A EOS User: Q2\\n\\nAssistant:

(the blanks round BOS and EOS are for reading only; the prompt ends with the colon and no blank).
System messages stay where they are. Roles are ordinary text here, so a message that spells out
"\\n\\nAssistant: " looks to the model like a turn: the format has no means against it.

Source: chat_template of deepseek-ai/deepseek-llm-7b-chat, the same in DeepSeek-V2-Chat,
DeepSeek-V2-Lite-Chat and DeepSeek-Coder-V2-Instruct. Differences from it:

- tools, tool calls and tool results are refused; the template drops them without a word;
- an assistant message without content is refused; the template fails on it;
- a final assistant message is refused, or with `prefix` goes on behind "Assistant: A"; the
  template closes it and opens another turn.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingle.prompt.encoder import BOS, EOS, Chat, Encoder, Prompt, continue_answer
from ingle.prompt.messages import refuse_tools


@dataclass(frozen=True)
class DeepSeekLLM(Encoder):
    """The "User: ... Assistant:" format; it has neither thoughts nor tools."""

    name: str = "deepseek_llm"
    starts_in_reasoning: bool = False

    def _write(self, prompt: Prompt, chat: Chat) -> None:
        refuse_tools(chat.messages, chat.tools)
        prompt.special(BOS)
        for message in chat.messages:
            prompt.mark(message.index)
            if message.prefix:
                prompt.text("Assistant:")
                # As the prompt ends where the answer's blank begins, so does one of no content.
                prompt.text(f" {answer}" if (answer := continue_answer(message)) else "")
                return
            if message.role == "assistant":
                prompt.text(f"Assistant: {message.content}")
                prompt.special(EOS)
            elif message.role == "user":
                prompt.text(f"User: {message.content}\n\n")
            else:
                prompt.text(f"{message.content}\n\n")
        prompt.text("Assistant:")
