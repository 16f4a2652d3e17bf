"""One answer from an engine in this process: pieces while it is written, numbers at the end."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ingle.engine.request import Request, SamplingParams
from ingle.errors import IngleError
from ingle.prompt.parser import reply_parser
from ingle.prompt.parser_plain import PlainParser
from ingle.server.reply import Piece, Reply, usage

if TYPE_CHECKING:
    from ingle.cli.loading import Loaded


class Answer:
    """Runs one prompt to its end; iterate it once, then read its properties."""

    def __init__(
        self,
        loaded: Loaded,
        prompt: list[int],
        params: SamplingParams,
        plain: bool = False,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        """plain: the prompt is text to be continued, not a conversation."""
        tokenizer = loaded.tokenizer
        parser = reply_parser(loaded.encoder.name, tokenizer, prompt, calls=False)
        self.reply = Reply(PlainParser() if plain else parser)
        self.token_ids: list[int] = []
        self.first_token_seconds = 0.0
        self.seconds = 0.0
        self._engine = loaded.engine
        self._request = Request(f"cli-{secrets.token_hex(8)}", prompt, params)
        self._interrupted = interrupted

    def __iter__(self) -> Iterator[Piece]:
        """Yield pieces as the engine writes them; raises what the engine refuses or fails with."""
        started = perf_counter()
        self._engine.check_length(len(self._request.prompt), self._request.params.max_tokens)
        self._engine.submit(self._request)
        while self.reply.finish_reason is None:
            if self._interrupted():
                self._engine.cancel(self._request.id)
            for event in self._engine.step():
                if event.finish_reason == "error":
                    raise IngleError(event.error or "The model failed on this request.")
                if not self.token_ids:
                    self.first_token_seconds = perf_counter() - started
                self.token_ids += [token.id for token in event.tokens]
                yield from self.reply.push(event)
                self.seconds = perf_counter() - started

    @property
    def tokens_per_second(self) -> float:
        return len(self.token_ids) / self.seconds if self.seconds else 0.0

    def speed(self) -> str:
        """One line for people: how much, how fast, how soon."""
        count = len(self.token_ids)
        first = f"{self.first_token_seconds * 1000:.0f} ms"
        ended = {"length": " · cut at the length limit", "cancelled": " · stopped"}
        note = ended.get(self.reply.finish_reason or "", "")
        return f"{count} tokens · {self.tokens_per_second:.0f} tokens/s · first after {first}{note}"

    def as_json(self) -> dict[str, Any]:
        """The answer and its numbers, for --json."""
        return {
            "text": self.reply.text("content"),
            "reasoning": self.reply.text("reasoning"),
            "finish_reason": self.reply.finish_reason,
            "token_ids": self.token_ids,
            "usage": usage([self.reply]),
            "first_token_seconds": round(self.first_token_seconds, 6),
            "tokens_per_second": round(self.tokens_per_second, 1),
        }
