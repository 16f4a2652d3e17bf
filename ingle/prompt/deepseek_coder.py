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
- a final assistant message is refused; the template opens another turn after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingle.prompt.encoder import BOS, Prompt
from ingle.prompt.messages import read_messages, read_tools, refuse_tools

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

EOT = "<|EOT|>"
DEFAULT = (
    "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by "
    "Deepseek Company, and you only answer questions related to computer science. For politically "
    "sensitive questions, security and privacy issues, and other non-computer science questions, "
    "you will refuse to answer"
)


@dataclass(frozen=True)
class DeepSeekCoder:
    """The "### Instruction:" format; it has neither thoughts nor tools."""

    name: str = "deepseek_coder"
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

        Raises InvalidRequestError for malformed messages and for any use of tools, ConfigError
        where the tokenizer has no `<|EOT|>`.
        """
        conversation = read_messages(messages)
        refuse_tools(conversation, read_tools(tools))
        prompt = Prompt(tokenizer)
        prompt.special(BOS)
        if not any(message.role == "system" for message in conversation):
            prompt.text(f"{DEFAULT}\n")
        for message in conversation:
            if message.role == "assistant":
                prompt.text(f"### Response:\n{message.content}\n")
                prompt.special(EOT)
                prompt.text("\n")
            elif message.role == "user":
                prompt.text(f"### Instruction:\n{message.content}\n")
            else:
                prompt.text(message.content)
        prompt.text("### Response:\n")
        return prompt.ids()
