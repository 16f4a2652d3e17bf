"""A request on its way through the engine: its tokens, its pages, how far it has been computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter

from ingle.engine.request import Request, TokenOut
from ingle.engine.sampler import SamplingState
from ingle.engine.scoring import PromptScores
from ingle.engine.text import TextStream
from ingle.models.batch import PAGE_TOKENS


@dataclass(eq=False)
class Sequence:
    """Prompt and generated tokens of one request.

    The cache holds valid latents of positions `0 .. computed - 1`; whatever lies behind them is
    the remains of a rejected draft. `limit` is the largest len(tokens) it may reach.
    """

    request: Request
    limit: int
    sampling: SamplingState
    text: TextStream
    scores: PromptScores | None = None  # of the prompt, until they have been delivered
    tokens: list[int] = field(init=False)
    computed: int = 0
    mtp_computed: int = 0  # the same for the MTP module's layer; -1 once it has missed a position
    pages: list[int] = field(default_factory=list)
    page_names: list[bytes] = field(default_factory=list)
    published: int = 0  # leading pages that have a name already
    lane: int = -1  # row of the page table while running
    drafts: list[int] = field(default_factory=list)  # guesses of the tokens after tokens[-1]
    cached_tokens: int | None = None  # prompt tokens found in the prefix cache; None: not admitted
    served: int = 0  # positions that had been computed when it was last pre-empted
    submitted: float = field(default_factory=perf_counter)
    queue_seconds: float = 0.0  # from then to its first admission

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)

    @property
    def pending(self) -> int:
        """Known tokens that are not in the cache yet: 1 while decoding, more while prefilling."""
        return len(self.tokens) - self.computed

    @property
    def generated(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def scored(self) -> bool:
        """Whether the prompt's log-probabilities wait to be delivered."""
        return self.scores is not None and self.scores.complete

    def take_scores(self) -> tuple[TokenOut, ...] | None:
        """The prompt's log-probabilities, once."""
        if self.scores is None or not self.scores.complete:
            return None
        scores, self.scores = tuple(self.scores.tokens), None
        return scores

    def covers(self, position: int) -> bool:
        """Whether the sequence has a page for the position."""
        return position < len(self.pages) * PAGE_TOKENS

    def page_tokens(self, index: int) -> list[int]:
        """The token ids of one page."""
        return self.tokens[index * PAGE_TOKENS : (index + 1) * PAGE_TOKENS]

    def restart(self) -> None:
        """Forget all that was computed, after its pages were released."""
        self.computed = self.mtp_computed = self.published = 0
        self.lane = -1
        self.pages, self.drafts = [], []
