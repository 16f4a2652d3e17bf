"""A model that answers by rule, so that tests of clients know every word beforehand.

It stands behind the real engine and writes DeepSeek-V3.1's format, so sampling, stop strings,
grammars, caching and parsing are real. What it says follows from its prompt alone:

    behind tool results      "I hear: " and the results
    tools, and cities named  a thought, then a call of the first tool for each city
    any other turn           a thought, then the user's own words
    no turn at all           the alphabet, from the last letter of the prompt to z

A question with SLOWLY in it is answered at SLOW_SECONDS a token, one with BROKEN not at all.
Legend: N rows of a step, V vocabulary.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vocabulary import SPECIALS, byte_tokenizer

from ingle.engine.config import EngineConfig
from ingle.engine.engine import Engine
from ingle.models.batch import PAGE_TOKENS, StepBatch
from ingle.prompt.encoder import (
    ASSISTANT,
    CALL,
    CALLS,
    END_CALL,
    END_CALLS,
    END_OUTPUT,
    END_THINK,
    EOS,
    OUTPUT,
    SEP,
    THINK,
    USER,
)
from ingle.prompt.tokenizer import Tokenizer

THOUGHT = "Let me see."
HEARD = "I hear: "
CITIES = ("Paris", "Oslo")
SLOWLY, BROKEN = "SLOWLY", "BROKEN"
SLOW_SECONDS = 0.02
CONTEXT = 4096
UNLIKELY = -30.0  # the logit of every token but the one that comes next


@dataclass(frozen=True)
class ScriptedConfig:
    vocab_size: int
    eos_ids: tuple[int, ...]
    max_position_embeddings: int = CONTEXT


class ScriptedModel:
    """What the engine needs of a model. The cache holds the tokens themselves."""

    num_mtp = 0

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.config = ScriptedConfig(tokenizer.vocab_size, (tokenizer.eos_id,))
        self._tokenizer = tokenizer

    def cache_shape(self, pages: int) -> tuple[int, int, int, int]:
        return (1, pages, PAGE_TOKENS, 1)

    def step(self, batch: StepBatch, cache_LPGC: Tensor) -> Tensor:
        """The token after each row, [N, 1]: a hidden state that says it all."""
        flat = cache_LPGC.view(-1)
        flat[batch.slots_N.long()] = batch.tokens_N.float()
        owners = batch.sequence_N.tolist()
        following = [*batch.tokens_N.tolist()[1:], 0]
        for n, owner in enumerate(owners):
            if n + 1 == len(owners) or owners[n + 1] != owner:  # the last one of its sequence
                length = int(batch.positions_N[n]) + 1
                pages = batch.pages_SP[owner].long()[: -(-length // PAGE_TOKENS)]
                seen = cache_LPGC[0, pages].flatten()[:length].int().tolist()
                following[n] = next_token(seen, self._tokenizer)
        return torch.tensor(following, dtype=torch.float32)[:, None]

    def logits(self, hidden_ND: Tensor) -> Tensor:
        logits_NV = torch.full((len(hidden_ND), self.config.vocab_size), UNLIKELY)
        return logits_NV.scatter_(1, hidden_ND.long(), 0.0)

    def mtp_step(self, hidden_ND: Tensor, batch: StepBatch, cache_PGC: Tensor) -> Tensor:
        raise NotImplementedError

    mtp_logits = logits


def scripted_engine(**options: Any) -> Engine:
    """An engine of its own; options: fields of EngineConfig."""
    tokenizer = byte_tokenizer()
    config = EngineConfig(**{"cache_dtype": torch.float32, "context": CONTEXT} | options)
    return Engine(ScriptedModel(tokenizer), tokenizer, config)


def next_token(seen: list[int], tokenizer: Tokenizer) -> int:
    """What comes after these tokens; the end where they are not what the rules would write."""
    turns = [tokenizer.special(name) for name in (ASSISTANT, END_OUTPUT)]
    places = [place for place, token in enumerate(seen) if token in turns]
    if not places:
        letter = tokenizer.token_bytes(seen[-1])
        if not b"a" <= letter < b"z":
            return tokenizer.eos_id
        return tokenizer.encode(chr(letter[0] + 1))[0]
    start = places[-1] + 1
    prompt, written = tokenizer.decode(seen[:start], skip_special=False), seen[start:]
    reply = write(prompt, tokenizer, opener=written[:1])
    done = len(written)
    return reply[done] if reply[:done] == written and done < len(reply) else tokenizer.eos_id


def write(prompt: str, tokenizer: Tokenizer, opener: list[int]) -> list[int]:
    """The whole turn that answers a prompt, with the token by which the prompt opens it."""
    thinks = opener == [tokenizer.special(THINK)]
    thought = [THINK, THOUGHT, END_THINK] if thinks else [END_THINK]
    if prompt.endswith(END_OUTPUT):
        results = re.findall(f"{OUTPUT}(.*?){END_OUTPUT}", prompt.rpartition(END_CALLS)[2], re.S)
        parts = [HEARD + " and ".join(results)]
    else:
        question = prompt.rpartition(USER)[2].removesuffix(ASSISTANT)
        _behave(question)
        tool = re.search(r"^### (\S+)$", prompt, re.M)
        cities = [city for city in CITIES if city in question]
        calls = _calls(tool.group(1), cities) if tool and cities else [question]
        parts = [*thought, *calls]
    return [token for part in (*parts, EOS) for token in _encode(part, tokenizer)]


def _calls(name: str, cities: list[str]) -> list[str]:
    each = ((CALL, name, SEP, f'{{"city": "{city}"}}', END_CALL) for city in cities)
    return [CALLS, *(part for call in each for part in call), END_CALLS]


def _encode(part: str, tokenizer: Tokenizer) -> list[int]:
    return [tokenizer.special(part)] if part in SPECIALS else tokenizer.encode(part)


def _behave(question: str) -> None:
    if BROKEN in question:
        raise RuntimeError("The model breaks, as it was asked to.")
    if SLOWLY in question:
        time.sleep(SLOW_SECONDS)
