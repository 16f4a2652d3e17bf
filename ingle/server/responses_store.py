"""Responses kept for later: in memory only, bounded in number and bytes, the oldest out first.

A response belongs to the API key that made it. For every other key it does not exist.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

MAX_RESPONSES = 1024
MAX_BYTES = 64 << 20
MAX_REFERRED = 16  # responses whose items one request may refer to

_ITEM_ID = re.compile(r"(?:msg|rs|fc|fco)_(resp_[0-9a-f]{32})_(?:in)?\d{1,5}")


@dataclass(frozen=True)
class Kept:
    """A response as JSON, and as JSON the list of all items it answers: those of the responses
    before it, too, so that a conversation does not break when an old response goes.

    JSON, because its bytes can be counted.
    """

    response: bytes
    items: bytes

    @property
    def size(self) -> int:
        return len(self.response) + len(self.items)

    def as_response(self) -> dict[str, Any]:
        response: dict[str, Any] = msgspec.json.decode(self.response)
        return response

    def as_items(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = msgspec.json.decode(self.items)
        return items


class ResponseStore:
    """What was kept, by key and id. Changed on the event loop only, read from any thread."""

    def __init__(self, max_responses: int = MAX_RESPONSES, max_bytes: int = MAX_BYTES) -> None:
        self.bytes = 0
        self._max_responses, self._max_bytes = max_responses, max_bytes
        self._kept: dict[tuple[bytes, str], Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, owner: bytes, id_: str, kept: Kept) -> None:
        """Keep a response; the oldest of all go until there is room, this one if it is too big."""
        self.delete(owner, id_)
        self._kept[owner, id_] = kept
        self.bytes += kept.size
        while len(self._kept) > self._max_responses or self.bytes > self._max_bytes:
            self.delete(*next(iter(self._kept)))

    def get(self, owner: bytes, id_: str) -> Kept | None:
        return self._kept.get((owner, id_))

    def delete(self, owner: bytes, id_: str) -> bool:
        """Whether there was such a response."""
        kept = self._kept.pop((owner, id_), None)
        if kept is None:
            return False
        self.bytes -= kept.size
        return True


class Finder:
    """Looks items up by the ids this server gave them, for one request of one key.

    Each response is read once, and only so many of them: reading takes time.
    """

    def __init__(self, store: ResponseStore, owner: bytes) -> None:
        self._store, self._owner = store, owner
        self._read: dict[str, dict[str, dict[str, Any]]] = {}

    def __call__(self, id_: str) -> dict[str, Any] | None:
        """The item, of a kept response or of what it answered; None if it is not there."""
        made_here = _ITEM_ID.fullmatch(id_)
        return self._items(made_here.group(1)).get(id_) if made_here else None

    def _items(self, response: str) -> dict[str, dict[str, Any]]:
        if response not in self._read:
            kept = self._store.get(self._owner, response)
            if kept is None or len(self._read) == MAX_REFERRED:
                return {}
            items = kept.as_items() + kept.as_response()["output"]
            self._read[response] = {item["id"]: item for item in items}
        return self._read[response]
