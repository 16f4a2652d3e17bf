"""Prompts of DeepSeek-R1, R1-0528 and the models distilled from them (Qwen, Llama, Qwen3).

    BOS system <｜User｜>Q<｜Assistant｜>A<｜end▁of▁sentence｜><｜User｜>Q2<｜Assistant｜><think>\\n

(the blanks round BOS and system are for reading only). Special tokens are looked up by string, as
their ids moved between generations; text from a message can never become one. Turns, calls and
results are written as in V3, see `deepseek_v3`, yet earlier answers lose their thoughts.

R1-0528 and its distill end at `<｜Assistant｜>`: those models open the thought themselves. Behind
tool results no prompt opens one. thinking=False has no official form; it closes an empty thought,
`<think>\\n\\n</think>\\n\\n`, and behind tool results it changes nothing.

A `prefix` message has no official form either. With a content its thought is closed,
`<think>\\nR\\n</think>\\n\\nA`, behind tool results only where it has one; without a content the
thought is left open, `<think>\\nR`.

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

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ingle.prompt.deepseek_v3 import add_turns
from ingle.prompt.encoder import ASSISTANT, END_THINK, THINK, Chat, Encoder, Prompt

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer


@dataclass(frozen=True)
class DeepSeekR1(Encoder):
    """The `<｜User｜>` format of a model that thinks before each answer to a user."""

    name: str = "deepseek_r1"
    starts_in_reasoning: bool = True
    """Whether the prompt itself opens the thought: R1 does, R1-0528 leaves it to the model."""
    moves_systems: ClassVar[bool] = True

    def _write(self, prompt: Prompt, chat: Chat) -> None:
        answers = add_turns(prompt, chat, drop_thoughts=True)
        if answers:
            prompt.special(ASSISTANT)
        last = chat.messages[-1]
        thought = last.reasoning if last.prefix and chat.thinking else None
        answer = last.content if last.prefix else ""
        if thought or (answers and (answer or not chat.thinking or self.starts_in_reasoning)):
            prompt.special(THINK)
            prompt.text("\n")
            prompt.text(thought or "")
            if answer or not chat.thinking:
                prompt.text("\n")
                prompt.special(END_THINK)
                prompt.text("\n\n")
        prompt.text(answer)


def has_thinking(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary has the two tokens a thought stands between."""
    return None not in (tokenizer.find_special(THINK), tokenizer.find_special(END_THINK))
