"""The prefix cache: pages of finished computation that a later prompt may begin with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from ingle.engine.cache import LatentCache
from ingle.engine.sequence import Sequence
from ingle.models.batch import PAGE_TOKENS


@dataclass(frozen=True)
class _Entry:
    name: bytes
    tokens: list[int]
    mtp: bool  # whether the MTP module's latents of this page were written too


class PrefixCache:
    """Named pages over a `LatentCache`: allocation, lookup, publication, eviction.

    A page's name is a SHA-256 chained over (model fingerprint, salt), the previous page's name and
    its own 64 token ids, so equal names mean equal contexts; the page's tokens are compared on a
    hit all the same. Pages that nobody references keep their latents until space is needed: the
    least recently used go first, the end of a chain before its beginning.
    """

    def __init__(self, cache: LatentCache, fingerprint: bytes, enabled: bool = True) -> None:
        self._cache = cache
        self._enabled = enabled
        self._fingerprint = fingerprint
        self._page_of: dict[bytes, int] = {}
        self._entries: dict[int, _Entry] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # named, unreferenced; oldest first

    @property
    def available(self) -> int:
        """Pages that can be had without pre-empting anyone."""
        return self._cache.free + len(self._idle)

    @property
    def idle(self) -> int:
        """Pages kept only because a later prompt may begin with them."""
        return len(self._idle)

    def allocate(self) -> int | None:
        """Take a page: an empty one, else the least recently used idle one, else None."""
        if not self._cache.free and self._idle:
            self._forget(next(iter(self._idle)))
        return self._cache.take()

    def match(self, sequence: Sequence) -> list[int]:
        """Pages that hold the beginning of the sequence, each with a reference for the caller.

        Never the whole sequence: its last token must be computed to know what follows it.
        """
        found: list[int] = []
        if not self._enabled:
            return found
        limit = (len(sequence.tokens) - 1) // PAGE_TOKENS
        for index in range(limit):
            page = self._page_of.get(self._name(sequence, index))
            if page is None or self._entries[page].tokens != sequence.page_tokens(index):
                break
            if self._cache.share(page):
                del self._idle[page]
            found.append(page)
        return found

    def copy_tail(self, sequence: Sequence, running: Iterable[Sequence]) -> int:
        """Fill the sequence's first page that was no hit from a running one that has the same
        tokens before it and at its start; returns how many latents. Never that of its last token.
        """
        index = sequence.computed // PAGE_TOKENS
        start = index * PAGE_TOKENS
        wanted = sequence.tokens[start : len(sequence.tokens) - 1][:PAGE_TOKENS]
        for other in running:
            ready = other.tokens[start : other.computed][: len(wanted)]
            if ready and ready == wanted and self._same_before(sequence, other, index):
                self._cache.copy(other.pages[index], sequence.pages[index], len(wanted))
                return len(wanted)
        return 0

    def _same_before(self, one: Sequence, other: Sequence, index: int) -> bool:
        if one.request.salt != other.request.salt:
            return False
        return index == 0 or self._name(one, index - 1) == self._name(other, index - 1)

    def missing(self, sequence: Sequence) -> tuple[int, bytes] | None:
        """Index and name of the first page that a hit could have and that is not there."""
        if self._enabled:
            for index in range((len(sequence.tokens) - 1) // PAGE_TOKENS):
                if (name := self._name(sequence, index)) not in self._page_of:
                    return index, name
        return None

    def will_publish(self, sequence: Sequence, index: int, name: bytes) -> bool:
        """Whether a running sequence is about to compute a page of this name."""
        whole = len(sequence.tokens) // PAGE_TOKENS
        return sequence.published <= index < whole and self._name(sequence, index) == name

    def cached_tokens(self, tokens: list[int], salt: bytes) -> int:
        """How many of these tokens a prompt would find now; may be called from any thread."""
        found, name = 0, self._root(salt)
        while self._enabled and found + PAGE_TOKENS < len(tokens):
            page_tokens = tokens[found : found + PAGE_TOKENS]
            name = _chain(name, page_tokens)
            page = self._page_of.get(name)
            entry = None if page is None else self._entries.get(page)
            if entry is None or entry.tokens != page_tokens:
                break
            found += PAGE_TOKENS
        return found

    def has_mtp(self, pages: list[int]) -> bool:
        """Whether the MTP module's latents of all these named pages were written."""
        return all(self._entries[page].mtp for page in pages)

    def publish(self, sequence: Sequence) -> None:
        """Name the sequence's newly completed pages, so that others may use them at once."""
        if not self._enabled:
            return
        while (sequence.published + 1) * PAGE_TOKENS <= sequence.computed:
            index = sequence.published
            sequence.published += 1
            name = self._name(sequence, index)
            if name in self._page_of:  # two sequences computed the same page; one name suffices
                continue
            page = sequence.pages[index]
            mtp = sequence.mtp_computed >= sequence.published * PAGE_TOKENS
            self._page_of[name] = page
            self._entries[page] = _Entry(name, sequence.page_tokens(index), mtp)

    def release(self, pages: list[int]) -> None:
        """Give back a sequence's references; named pages stay usable until evicted."""
        for page in reversed(pages):  # so that a chain is evicted from its end
            if self._cache.drop(page):
                if page in self._entries:
                    self._idle[page] = None
                else:
                    self._cache.recycle(page)

    def reset(self, fingerprint: bytes) -> None:
        """Forget every page: for when the model's weights have changed. Nothing may be running."""
        assert not self._cache.referenced, "the prefix cache is in use"
        for page in list(self._idle):
            self._forget(page)
        self._fingerprint = fingerprint

    def _forget(self, page: int) -> None:
        del self._idle[page]
        del self._page_of[self._entries.pop(page).name]
        self._cache.recycle(page)

    def _name(self, sequence: Sequence, index: int) -> bytes:
        names = sequence.page_names
        while len(names) <= index:
            before = names[-1] if names else self._root(sequence.request.salt)
            names.append(_chain(before, sequence.page_tokens(len(names))))
        return names[index]

    def _root(self, salt: bytes) -> bytes:
        """What stands before the first page. Both parts are hashed to a fixed length, so that no
        two pairs look alike."""
        return sha256(self._fingerprint).digest() + sha256(salt).digest()


def _chain(before: bytes, tokens: list[int]) -> bytes:
    """The name of a page after the one named `before`."""
    return sha256(before + np.array(tokens, dtype="<i8").tobytes()).digest()
