"""From token ids to output text: incremental decoding and stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ingle.engine.request import StopWindow, TokenOut
from ingle.engine.sampler import Sample

if TYPE_CHECKING:
    from ingle.prompt.tokenizer import Tokenizer


class TextStream:
    """Turns one request's samples into `TokenOut`s and watches for its stop strings.

    While a stop string could still be completed, the tokens it may cover are held back whole, so
    that every token carries its own text and a parser sees text and special tokens in their order.
    Output ends before the stop string: tokens under it keep their ids and lose (part of) their
    text. Outside of the window nothing is watched or held. Without a tokenizer all texts are empty.
    """

    def __init__(
        self, tokenizer: Tokenizer | None, stop: tuple[str, ...], window: StopWindow | None = None
    ) -> None:
        self._detokenizer = None
        if tokenizer is not None:
            from ingle.prompt.detokenize import Detokenizer

            self._detokenizer = Detokenizer(tokenizer)
        self._stop = stop
        self._window = window or StopWindow()
        self._open = self._window.open
        self._held: list[TokenOut] = []
        self.matched: str | None = None

    def push(self, sample: Sample, silent: bool = False) -> list[TokenOut]:
        """Take a token, return those whose text is settled; a `silent` one has no text."""
        text = ""
        if self._detokenizer is not None and not silent:
            text = self._detokenizer.push(sample.token)
        out = TokenOut(sample.token, text, sample.logprob, sample.top, sample.kept)
        if not self._stop:
            return [out]
        opens = sample.token in self._window.opened_by
        if opens or sample.token in self._window.closed_by:
            self._open = opens
            ready, self._held = [*self._held, out], []
            return ready
        if not self._open:
            return [out]
        self._held.append(out)
        return self._release()

    def finish(self, tokens: list[TokenOut]) -> list[TokenOut]:
        """The last tokens of an output, `tokens`, with all that was held back.

        An incomplete character goes to the last of them, unless a stop string cut the text.
        """
        if self.matched is not None:
            return tokens
        tokens, self._held = tokens + self._held, []
        rest = self._detokenizer.flush() if self._detokenizer is not None else ""
        if rest and tokens:
            tokens[-1] = replace(tokens[-1], text=tokens[-1].text + rest)
        return tokens

    def _release(self) -> list[TokenOut]:
        text = "".join(out.text for out in self._held)
        found = [(text.find(stop), stop) for stop in self._stop if stop in text]
        if found:
            start, self.matched = min(found)
            held, self._held = self._held, []
            return _cut(held, start)
        settled = len(text) - max(_overlap(text, stop) for stop in self._stop)
        count = end = 0
        for out in self._held:
            end += len(out.text)
            if end > settled:
                break
            count += 1
        ready, self._held = self._held[:count], self._held[count:]
        return ready


def answer_window(prompt: Sequence[int], tokenizer: Tokenizer, calls: bool) -> StopWindow:
    """Where stop strings count in the reply to a conversation: in the answer, as at DeepSeek, not
    in the thought before it or, where tools are offered (`calls`), in a call."""
    from ingle.prompt.encoder import CALL, CALLS, DSML, END_THINK, THINK, ends_in_reasoning

    closing = map(tokenizer.find_special, (THINK, *((DSML, CALLS, CALL) if calls else ())))
    opening = tokenizer.find_special(END_THINK)
    return StopWindow(
        open=not ends_in_reasoning(prompt, tokenizer),
        opened_by=frozenset() if opening is None else frozenset({opening}),
        closed_by=frozenset(token for token in closing if token is not None),
    )


def _cut(tokens: list[TokenOut], length: int) -> list[TokenOut]:
    """The tokens with their joined text shortened to `length` characters."""
    out = []
    for token in tokens:
        text = token.text[: max(length, 0)]
        length -= len(token.text)
        out.append(token if text == token.text else replace(token, text=text))
    return out


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
