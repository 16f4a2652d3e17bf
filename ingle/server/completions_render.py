"""The text completion shape of replies, whole or in chunks, with OpenAI's flat logprobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ingle.engine.request import TokenOut
from ingle.server.chat_render import LOWEST_LOGPROB, spell
from ingle.server.errors import envelope
from ingle.server.generation import Added
from ingle.server.reply import Reply, usage
from ingle.server.sse import DONE, data_frame, join

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer


@dataclass
class CompletionRenderer:
    """Writes one request's replies in the text completion shape.

    candidates: replies per prompt. echoes: for each reply the prompt ids it repeats, or None.
    """

    id: str
    created: int
    model: str
    fingerprint: str
    tokenizer: Tokenizer
    replies: Sequence[Reply]
    candidates: int
    logprobs: bool
    echoes: Sequence[list[int] | None]
    include_usage: bool
    _offsets: dict[int, int] = field(default_factory=dict)  # text sent so far, per choice

    def completion(self, kept: Sequence[int]) -> dict[str, Any]:
        """The whole answer; `kept` are the places of the replies that are its choices."""
        choices = [self._whole(number, index) for number, index in enumerate(kept)]
        return self._object(choices) | {"usage": usage(self.replies, self.candidates)}

    # --- a stream ---

    def start(self) -> bytes:
        return b""

    def added(self, pieces: list[Added]) -> bytes:
        echoes = b"".join(self._echo_frame(added.choice) for added in pieces)
        return echoes + join(self._piece_chunk, pieces)

    def end(self) -> bytes:
        frames = b""
        for index, reply in enumerate(self.replies):
            frames += self._echo_frame(index)
            chunk = self._chunk(self._choice(index, "", None, reply.finish_reason))
            if index == len(self.replies) - 1:
                chunk |= {"usage": usage(self.replies, self.candidates)}
            frames += data_frame(chunk)
        return frames + DONE

    def failed(self, error: Exception) -> bytes:
        return data_frame(envelope(error))

    # --- its parts ---

    def _whole(self, number: int, index: int) -> dict[str, Any]:
        reply = self.replies[index]
        echo, logprobs = self._echo(index)
        text = echo + reply.text("content")
        if self.logprobs:
            own = self._logprobs(reply.tokens("content"), len(echo))
            logprobs = own if logprobs is None else {k: logprobs[k] + own[k] for k in own}
        return self._choice(number, text, logprobs, reply.finish_reason)

    def _echo(self, index: int) -> tuple[str, dict[str, list[Any]] | None]:
        """The repeated prompt and its log-probabilities, ("", None) without echo."""
        ids = self.echoes[index]
        if ids is None:
            return "", None
        text = self.tokenizer.decode(ids, skip_special=False)
        scored = self.replies[index].prompt_logprobs
        if not self.logprobs or scored is None:
            return text, None
        return text, self._logprobs(list(scored)[len(scored) - len(ids) :], 0)

    def _echo_frame(self, index: int) -> bytes:
        """The prompt as a first chunk, once; b"" without echo."""
        if index in self._offsets:
            return b""
        text, logprobs = self._echo(index)
        self._offsets[index] = len(text)
        return data_frame(self._chunk(self._choice(index, text, logprobs))) if text else b""

    def _piece_chunk(self, added: Added) -> dict[str, Any] | None:
        index, piece = added
        if not piece.text and not self.logprobs:
            return None
        logprobs = self._logprobs(piece.tokens, self._offsets[index]) if self.logprobs else None
        self._offsets[index] += len(piece.text)
        return self._chunk(self._choice(index, piece.text, logprobs))

    def _choice(
        self,
        index: int,
        text: str,
        logprobs: dict[str, list[Any]] | None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        return {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        chunk = self._object([choice])
        return chunk | {"usage": None} if self.include_usage else chunk

    def _object(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }

    def _logprobs(self, tokens: Sequence[TokenOut], offset: int) -> dict[str, list[Any]]:
        """OpenAI's parallel lists; text_offset counts characters from the start of the choice."""
        offsets, spelled = [], []
        for token in tokens:
            offsets.append(offset)
            spelled.append(self._spell(token.id))
            offset += len(token.text)
        return {
            "tokens": spelled,
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": [self._top(token) for token in tokens],
            "text_offset": offsets,
        }

    def _top(self, token: TokenOut) -> dict[str, float] | None:
        """The likeliest tokens and, as OpenAI has it, the chosen one beside them."""
        if token.logprob is None:  # the first token of a prompt follows nothing
            return None
        chosen = [(token.id, token.logprob)] if token.top_logprobs else []
        scores = [*token.top_logprobs, *chosen]
        return {self._spell(id_): max(value, LOWEST_LOGPROB) for id_, value in scores}

    def _spell(self, token: int) -> str:
        return spell(self.tokenizer.token_bytes(token))


def _finite(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, LOWEST_LOGPROB)
