"""Prompts of DeepSeek-LLM, DeepSeekMoE-16B, V2, V2-Lite and Coder-V2.

    BOS system\\n\\nUser: Q\\n\\nAssistant: A EOS User: Q2\\n\\nAssistant:

(the blanks round BOS and EOS are for reading only; the prompt ends with the colon and no blank).
System messages stay where they are. Roles are ordinary text here, so a message that spells out
"\\n\\nAssistant: " looks to the model like a turn: the format has no means against it.

Source: chat_template of deepseek-ai/deepseek-llm-7b-chat, the same in DeepSeek-V2-Chat,
DeepSeek-V2-Lite-Chat and DeepSeek-Coder-V2-Instruct. Differences from it:

- tools, tool calls and tool results are refused; the template drops them without a word;
- an assistant message without content is refused; the template fails on it;
- a final assistant message is refused; the template opens another turn after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingle.prompt.encoder import BOS, EOS, Prompt
from ingle.prompt.messages import read_messages, read_tools, refuse_tools

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer


@dataclass(frozen=True)
class DeepSeekLLM:
    """The "User: ... Assistant:" format; it has neither thoughts nor tools."""

    name: str = "deepseek_llm"
    starts_in_reasoning: bool = False

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        tokenizer: Tokenizer,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool = True,
    ) -> list[int]:
        """Token ids of a conversation; `thinking` has no effect.

        Raises InvalidRequestError for malformed messages and for any use of tools.
        """
        conversation = read_messages(messages)
        refuse_tools(conversation, read_tools(tools))
        prompt = Prompt(tokenizer)
        prompt.special(BOS)
        for message in conversation:
            if message.role == "assistant":
                prompt.text(f"Assistant: {message.content}")
                prompt.special(EOS)
            elif message.role == "user":
                prompt.text(f"User: {message.content}\n\n")
            else:
                prompt.text(f"{message.content}\n\n")
        prompt.text("Assistant:")
        return prompt.ids()
