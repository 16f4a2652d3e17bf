"""Where one request stands in its grammar: which tokens may come next, also behind drafts.

Legend: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from llguidance import LLMatcher

Floats = NDArray[np.float32]
Words = NDArray[np.uint32]  # one bit per token, the lowest bit first


class GrammarFailure(Exception):  # noqa: N818 - an outcome of one request, like SamplingFailure
    """The grammar of a request cannot be followed any further; the text is for its owner."""


class GrammarState:
    """The matcher of one sequence, always as far as its accepted tokens.

    Drafts are consumed on top of them to mask the rows behind, and taken back when they turn out
    wrong. Masks are kept until then, so a position costs one mask whether it is drafted, verified
    or both. Inside a thought, until `start_after`, only the end of the sequence is forbidden. A
    sequence begins inside one, or may open it with `opened_by` as its first token.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        start_after: int | None,
        opened_by: int | None,
        eos_ids: frozenset[int],
        vocab: int,
    ) -> None:
        self.ended = False  # the grammar is complete and cannot be continued
        self._matcher = matcher
        self._start_after = start_after
        self._opened_by = opened_by  # None once the first token is there
        self._waiting = start_after is not None and opened_by is None
        self._eos_ids = eos_ids
        self._eos = sorted(eos_ids)
        self._vocab = vocab
        self._path: list[int] = []  # drafts that the matcher has consumed
        self._masks: list[Words] = []  # masks[i] is the one after i tokens of the path

    def restrict(self, logits_V: Floats, ahead: Items[int]) -> None:
        """Set what may not follow the accepted tokens and the drafts `ahead` to -inf, in place.

        Behind a draft that is forbidden itself nothing is changed, since that row is never looked
        at. Raises GrammarFailure where the grammar has become too complex or cannot go on.
        """
        opens = self._opened_by
        if opens is not None and not ahead:
            kept = logits_V[opens]
            self._apply((), logits_V)
            logits_V[opens] = kept
            return
        if self._waiting or (opens is not None and ahead[0] == opens):
            if self._start_after not in ahead:
                logits_V[self._eos] = -np.inf
                return
            ahead = ahead[ahead.index(self._start_after) + 1 :]
        self._apply(ahead, logits_V)

    def commit(self, token: int) -> None:
        """Take over a token that was generated."""
        opens, self._opened_by = self._opened_by, None
        if opens is not None and token == opens:
            self._waiting = True
        elif self._waiting:
            self._waiting = token != self._start_after
        elif token in self._eos_ids:
            self.ended = True
        elif self._path and self._path[0] == token:
            del self._path[0], self._masks[0]
            self.ended = not self._path and self._matcher.is_stopped()
        else:
            self._rewind(0)
            self._masks.clear()
            self._consume(token)
            self.ended = self._matcher.is_stopped()

    def _apply(self, ahead: Items[int], logits_V: Floats) -> None:
        words = self._mask(ahead)
        if words is not None:
            forbidden_V = np.unpackbits(~words.view(np.uint8), count=self._vocab, bitorder="little")
            np.copyto(logits_V, np.float32(-np.inf), where=forbidden_V.view(bool))

    def _mask(self, ahead: Items[int]) -> Words | None:
        """What may follow `ahead`; None where one of its tokens is forbidden or the last one."""
        common = 0
        while common < min(len(ahead), len(self._path)) and ahead[common] == self._path[common]:
            common += 1
        self._rewind(common)
        while True:
            depth = len(self._path)
            if len(self._masks) == depth:
                self._masks.append(self._compute())
            if depth == len(ahead):
                return self._masks[depth]
            token = ahead[depth]
            if token in self._eos_ids or not self._masks[depth][token >> 5] >> (token & 31) & 1:
                return None
            self._consume(token)
            self._path.append(token)

    def _compute(self) -> Words:
        words: Words = np.zeros(-(-self._vocab // 32), dtype=np.uint32)
        self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        if self._matcher.is_error():  # the mask is then that of an end, which would be a lie
            if self._matcher.stop_reason() == "NoExtensionBias":
                raise GrammarFailure("The vocabulary has no token that continues the grammar.")
            raise GrammarFailure("The grammar became too complex at this point of the text.")
        return words

    def _consume(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise GrammarFailure("The grammar became too complex at this point of the text.")

    def _rewind(self, depth: int) -> None:
        """Take drafts back until `depth` of them are left."""
        extra = len(self._path) - depth
        if extra > 0:
            taken_back = self._matcher.rollback(extra)
            assert taken_back, "the compiler lets only grammars pass that can be rolled back"
            del self._path[depth:], self._masks[depth + 1 :]
