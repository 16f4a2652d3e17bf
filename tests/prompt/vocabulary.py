"""A tokenizer of DeepSeek's special tokens and single bytes, for tests of prompts."""

from __future__ import annotations

from collections.abc import Sequence

from ingle.prompt import encoder
from ingle.prompt.deepseek_coder import EOT
from ingle.prompt.tokenizer import Tokenizer, byte_symbols

TOOLS = (
    encoder.CALLS,
    encoder.END_CALLS,
    encoder.CALL,
    encoder.END_CALL,
    encoder.OUTPUTS,
    encoder.END_OUTPUTS,
    encoder.OUTPUT,
    encoder.END_OUTPUT,
    encoder.SEP,
)
ENDS = (encoder.BOS, encoder.EOS)
ROLES = (encoder.USER, encoder.ASSISTANT)
THOUGHT = (encoder.THINK, encoder.END_THINK)
SPECIALS = (*ENDS, *ROLES, *THOUGHT, EOT, "<｜fim▁hole｜>", *TOOLS)
V4 = (*SPECIALS, encoder.DSML, encoder.LATEST_REMINDER)
V41 = (*V4, encoder.SYSTEM)


def byte_tokenizer(specials: Sequence[str] = SPECIALS, bos: str = encoder.BOS) -> Tokenizer:
    """One id for each special token and for each byte."""
    entries = (*specials, *byte_symbols())
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return Tokenizer(
        {
            "version": "1.0",
            "added_tokens": [
                {"id": index, "content": content, "special": True, **flags}
                for index, content in enumerate(specials)
            ],
            "pre_tokenizer": {**byte_level, "trim_offsets": True},
            "decoder": {**byte_level, "trim_offsets": True},
            "model": {
                "type": "BPE",
                "vocab": {entry: index for index, entry in enumerate(entries)},
                "merges": [],
            },
        },
        bos,
        encoder.EOS,
    )
