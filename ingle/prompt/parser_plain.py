"""The parser of replies that are no conversation: all text is content."""

from __future__ import annotations

from ingle.prompt.parser import Delta, Kind


class PlainParser:
    """Passes every text on as content."""

    kind: Kind = "content"

    def push(self, token: int, text: str) -> list[Delta]:
        return [Delta("content", text)] if text else []

    def finish(self) -> list[Delta]:
        return []
