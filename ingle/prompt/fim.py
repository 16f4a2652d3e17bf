"""The prompt that asks for the text between two given ones.

    BOS<｜fim▁begin｜>PREFIX<｜fim▁hole｜>SUFFIX<｜fim▁end｜>

Coder v1, V2 and all vocabularies since V3 spell the three tokens the same; their ids differ. The
model writes the middle and then its end token. Source: the model card of DeepSeek-Coder and the
paper of DeepSeek-V3 (2412.19437, section 4.1), which calls the order PSM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingle.errors import InvalidRequestError
from ingle.prompt.encoder import BOS, Prompt

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

FIM_BEGIN, FIM_HOLE, FIM_END = "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"


def fim_prompt(tokenizer: Tokenizer, prefix: str, suffix: str) -> list[int]:
    """Token ids of a text with a gap, ready for the model to fill it.

    Names of special tokens in prefix and suffix are ordinary text. Raises InvalidRequestError
    where the vocabulary lacks a token for it.
    """
    if any(tokenizer.find_special(name) is None for name in (FIM_BEGIN, FIM_HOLE, FIM_END)):
        raise InvalidRequestError(
            "This model's vocabulary has no tokens to fill a gap; leave suffix out.", "suffix"
        )
    prompt = Prompt(tokenizer)
    prompt.special(BOS, FIM_BEGIN)
    prompt.text(prefix)
    prompt.special(FIM_HOLE)
    prompt.text(suffix)
    prompt.special(FIM_END)
    return prompt.ids()
