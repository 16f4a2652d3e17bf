"""Feeds written-out replies to the parsers, cut in any way, and joins what comes out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ingle.prompt import encoder
from ingle.prompt.detokenize import Detokenizer
from ingle.prompt.parser import Delta, ReplyParser
from ingle.prompt.tokenizer import Tokenizer
from tests.prompt.vocabulary import SPECIALS, byte_tokenizer

DSML = "｜DSML｜"
SPELLED = re.compile("|".join(map(re.escape, (*SPECIALS, DSML))))
WITH_DSML = byte_tokenizer((*SPECIALS, DSML, encoder.SYSTEM))
WITHOUT_DSML = byte_tokenizer(SPECIALS)

Push = tuple[int, str]


@dataclass
class Parsed:
    """A reply in its fields; calls as [name, arguments]."""

    reasoning: str = ""
    content: str = ""
    calls: list[list[str]] = field(default_factory=list)

    def add(self, deltas: Iterable[Delta]) -> None:
        for delta in deltas:
            if delta.kind == "call":
                if delta.name:
                    assert delta.call == len(self.calls), "calls are counted from 0"
                    self.calls.append([delta.name, ""])
                assert delta.call == len(self.calls) - 1, "only the last call grows"
                assert delta.name or delta.text
                self.calls[delta.call][1] += delta.text
                continue
            assert delta.text and delta.call == -1 and not delta.name
            if delta.kind == "reasoning":
                self.reasoning += delta.text
            else:
                self.content += delta.text

    def starts(self, whole: Parsed) -> bool:
        """Whether this is how `whole` begins, field by field."""
        names, texts = ([call[place] for call in self.calls] for place in (0, 1))
        return (
            whole.reasoning.startswith(self.reasoning)
            and whole.content.startswith(self.content)
            and names == [name for name, _ in whole.calls[: len(names)]]
            and all(w[1].startswith(text) for w, text in zip(whole.calls, texts, strict=False))
        )


def parts(text: str, tokenizer: Tokenizer) -> list[int | str]:
    """The special tokens of a reply as ids, the text between them in one piece."""
    found: list[int | str] = []
    place = 0
    for match in SPELLED.finditer(text):
        index = tokenizer.find_special(match.group())
        if index is not None:
            found += [text[place : match.start()], index]
            place = match.end()
    return [part for part in (*found, text[place:]) if part != ""]


def as_tokens(text: str, tokenizer: Tokenizer) -> list[Push]:
    """What the engine hands out, token by token."""
    detokenizer = Detokenizer(tokenizer)
    ids: list[int] = []
    for part in parts(text, tokenizer):
        ids += [part] if isinstance(part, int) else tokenizer.encode(part)
    return [(index, detokenizer.push(index)) for index in ids]


def in_pieces(text: str, tokenizer: Tokenizer, cuts: Sequence[int] = ()) -> list[Push]:
    """Text between special tokens at once, or cut behind every `cuts[i]` characters in turn."""
    plain = tokenizer.encode("a")[0]
    pushes: list[Push] = []
    for part in parts(text, tokenizer):
        if isinstance(part, int):
            pushes.append((part, ""))
            continue
        turn = 0
        while part:
            size = cuts[turn % len(cuts)] if cuts else len(part)
            pushes.append((plain, part[:size]))
            part, turn = part[size:], turn + 1
    return pushes


def feed(parser: ReplyParser, pushes: Iterable[Push], finish: bool = True) -> Parsed:
    """Everything a reply comes to."""
    parsed = Parsed()
    for token, text in pushes:
        parsed.add(parser.push(token, text))
    if finish:
        parsed.add(parser.finish())
    return parsed


def opened(tokenizer: Tokenizer, thinking: bool | None) -> list[int]:
    """The end of a prompt: in an open thought, behind a closed one, or without any (None)."""
    tag = {True: encoder.THINK, False: encoder.END_THINK, None: encoder.ASSISTANT}[thinking]
    return [tokenizer.special(encoder.USER), *tokenizer.encode("Q"), tokenizer.special(tag)]
