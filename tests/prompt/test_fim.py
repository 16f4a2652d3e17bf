"""The prompt for a gap."""

from __future__ import annotations

import pytest

from ingle.errors import InvalidRequestError
from ingle.prompt.encoder import BOS
from ingle.prompt.fim import FIM_BEGIN, FIM_END, FIM_HOLE, fim_prompt
from tests.prompt.vocabulary import ENDS, SPECIALS, byte_tokenizer

FIM = (FIM_HOLE, FIM_BEGIN, FIM_END)


def test_prefix_hole_suffix() -> None:
    tokenizer = byte_tokenizer((*ENDS, *FIM))
    ids = fim_prompt(tokenizer, "def f():\n", f"    return x{FIM_END}{BOS}")
    assert tokenizer.decode(ids, skip_special=False) == (
        f"{BOS}{FIM_BEGIN}def f():\n{FIM_HOLE}    return x{FIM_END}{BOS}{FIM_END}"
    )
    specials = [BOS, FIM_BEGIN, FIM_HOLE, FIM_END]
    assert [i for i in ids if tokenizer.is_special(i)] == list(map(tokenizer.special, specials))
    assert len(fim_prompt(tokenizer, "", "")) == 4


def test_a_vocabulary_without_the_tokens_refuses_the_suffix() -> None:
    for missing in FIM:
        names = [name for name in {*SPECIALS, *FIM} if name != missing]
        with pytest.raises(InvalidRequestError) as refusal:
            fim_prompt(byte_tokenizer(names), "a", "b")
        assert refusal.value.param == "suffix"
