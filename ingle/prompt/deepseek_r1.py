"""Prompts of DeepSeek-R1, R1-0528 and the models distilled from them (Qwen, Llama, Qwen3).

    BOS system <｜User｜>Q<｜Assistant｜>A<｜end▁of▁sentence｜><｜User｜>Q2<｜Assistant｜><think>\\n

(the blanks round BOS and system are for reading only). Special tokens are looked up by string, as
their ids moved between generations; text from a message can never become one. Turns, calls and
results are written as in V3, see `deepseek_v3`, yet earlier answers lose their thoughts.

R1-0528 and its distill end at `<｜Assistant｜>`: those models open the thought themselves. Behind
tool results no prompt opens one. thinking=False has no official form; it closes an empty thought,
`<think>\\n\\n</think>\\n\\n`, and behind tool results it changes nothing.

Source: chat_template of deepseek-ai/DeepSeek-R1, DeepSeek-R1-Distill-Qwen-32B and
DeepSeek-R1-0528-Qwen3-8B. Differences from them, beside those of V3:

- reasoning is cut from an answer wherever it stands; R1 leaves it in an answer with calls and in
  one behind results. Where the message has a reasoning_content, the client keeps reasoning
  apart, and a `</think>` in the content is the author's own: nothing is cut;
- R1-0528's template fails on content of null, which OpenAI's clients send beside calls;
- R1's template puts nothing between two results, the distills' and R1-0528's a newline: a newline;
- the distills' keep only the last system text; all are kept here;
- the distills' vocabularies have no tokens for calls, and their templates would write them as
  text, which a user could write as well: tools are refused there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingle.prompt.deepseek_v3 import add_turns
from ingle.prompt.encoder import ASSISTANT, END_THINK, THINK

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer


@dataclass(frozen=True)
class DeepSeekR1:
    """The `<｜User｜>` format of a model that thinks before each answer to a user."""

    name: str = "deepseek_r1"
    starts_in_reasoning: bool = True
    """Whether the prompt itself opens the thought: R1 does, R1-0528 leaves it to the model."""

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        tokenizer: Tokenizer,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool = True,
    ) -> list[int]:
        """Token ids of a conversation, with tool calls and results, ready for the next turn.

        Raises InvalidRequestError for malformed messages, and for any use of tools where the
        tokenizer has no tokens for them; ConfigError where it has no `<think>` to open.
        """
        prompt, answers = add_turns(messages, tokenizer, tools, drop_thoughts=True)
        if not answers:
            return prompt.ids()
        prompt.special(ASSISTANT)
        if not thinking:
            prompt.special(THINK)
            prompt.text("\n\n")
            prompt.special(END_THINK)
            prompt.text("\n\n")
        elif self.starts_in_reasoning:
            prompt.special(THINK)
            prompt.text("\n")
        return prompt.ids()


def has_thinking(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary has the two tokens a thought stands between."""
    return None not in (tokenizer.find_special(THINK), tokenizer.find_special(END_THINK))
