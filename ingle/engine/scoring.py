"""Log-probabilities of a prompt's own tokens, as `echo` asks for them.

Legend: N rows of a step, D model width, R scored rows, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ingle.engine.request import TokenOut
from ingle.engine.runner import Runner
from ingle.engine.sampler import Floats, log_norms, top_ids

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer

_ROWS = 64  # scored at once: 33 MB of logits at a vocabulary of 129,280


class PromptScores:
    """The scores of one prompt, as far as it has been computed.

    A prompt that wants them uses no cached pages, as scores need every row. The first token has no
    log-probability, there being nothing before it.
    """

    def __init__(self, prompt: list[int], top: int, tokenizer: Tokenizer | None) -> None:
        self._prompt, self._top = prompt, top
        self._detokenizer = None
        if tokenizer is not None:
            from ingle.prompt.detokenize import Detokenizer

            self._detokenizer = Detokenizer(tokenizer)
        self.tokens = [self._out(prompt[0])]

    @property
    def complete(self) -> bool:
        """Whether every token of the prompt has its score."""
        return len(self.tokens) == len(self._prompt)

    def add(self, runner: Runner, hidden_ND: Tensor, first: int, start: int, length: int) -> None:
        """Score what the hidden rows `first ..` of the positions `start ..` predict.

        After a pre-emption rows come a second time and are skipped.
        """
        end = min(start + length, len(self._prompt) - 1)  # the last position predicts no prompt
        for position in range(max(start, len(self.tokens) - 1), end, _ROWS):
            stop = min(position + _ROWS, end)
            rows = range(first + position - start, first + stop - start)
            self._take(runner.logits(hidden_ND, list(rows)))

    def _take(self, logits_RV: Floats) -> None:
        norms_R = log_norms(logits_RV)
        if not np.isfinite(norms_R).all():
            raise ArithmeticError("a prompt's logits are not finite")
        for logits_V, norm in zip(logits_RV, norms_R.tolist(), strict=True):
            token = self._prompt[len(self.tokens)]
            top = tuple((int(i), float(logits_V[i]) - norm) for i in top_ids(logits_V, self._top))
            self.tokens.append(self._out(token, float(logits_V[token]) - norm, top))

    def _out(
        self, token: int, logprob: float | None = None, top: tuple[tuple[int, float], ...] = ()
    ) -> TokenOut:
        text = self._detokenizer.push(token) if self._detokenizer is not None else ""
        return TokenOut(token, text, logprob, top)
