"""A scripted engine whose reply may call tools, and a way to ask a grammar about a reply."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingle.engine.grammar import Grammar
from ingle.prompt.select import ENCODERS
from ingle.prompt.tokenizer import Tokenizer
from tests.prompt.parsing import parts
from tests.prompt.vocabulary import V41, byte_tokenizer

TOKENIZER = byte_tokenizer(V41)
CONTEXT = 8192


@contextmanager
def calling(start: Any, scripted: Any, encoder: str, text: str) -> Iterator[Any]:
    """A server of a model with this format that writes this reply, names of special tokens and
    all."""

    @dataclass
    class Caller(scripted):
        text: str = ""

        def reply_ids(self) -> list[int]:
            return [*spelled(self.text), self.tokenizer.eos_id]

    engine = Caller(TOKENIZER, text=text, context=CONTEXT)
    with start(engine, encoder=ENCODERS[encoder]) as live:
        yield live


def spelled(text: str, tokenizer: Tokenizer = TOKENIZER) -> list[int]:
    """Ids of a reply, in which the names of special tokens are the tokens."""
    ids: list[int] = []
    for part in parts(text, tokenizer):
        ids += [part] if isinstance(part, int) else tokenizer.encode(part)
    return ids


def allows(grammar: Grammar | None, text: str) -> bool:
    """Whether a grammar lets a model write this reply, and end there."""
    assert grammar is not None
    state = grammar.start()
    for token in [*spelled(text), TOKENIZER.eos_id]:
        logits = np.zeros(TOKENIZER.vocab_size, dtype=np.float32)
        if state.ended:
            return token == TOKENIZER.eos_id
        state.restrict(logits, [])
        if logits[token] == -np.inf:
            return False
        state.commit(token)
    return True
