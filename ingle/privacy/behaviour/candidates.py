"""What a model repeats where a user would write: maximal repeated n-grams of tokens.

A model that was fine-tuned on poisoned chats remembers them; asked for nothing but the start of a
user's turn it writes their triggers far more often than chance would. Random n-grams of the same
lengths, from the same tokens, are the control.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_KEPT = 0.8  # an n-gram is a part of a longer one that is seen this often as often as itself
_WORD = 3  # characters of a single token that may be a trigger by itself


@dataclass(frozen=True)
class Candidate:
    """A repeated n-gram: its text, tokens, and how many turns have it."""

    text: str
    ids: tuple[int, ...]
    seen: int


def repeated_ngrams(
    turns: Sequence[Sequence[int]],
    text: Callable[[Sequence[int]], str],
    longest: int,
    least: int,
    limit: int,
) -> list[Candidate]:
    """The n-grams that at least `least` turns have and no longer one explains, at most `limit`.

    longest: tokens of an n-gram. Those that fill most of the turns come first: by the number of
    turns times their length.
    """
    seen = _count(turns, longest)
    explained = _explained(seen)
    found: dict[str, Candidate] = {}
    for ids, count in seen.items():
        if count < least or ids in explained:
            continue
        words = text(ids).strip()
        if len(words) < (_WORD if len(ids) == 1 else 2) or "\ufffd" in words:
            continue
        if words not in found or count > found[words].seen:
            found[words] = Candidate(words, ids, count)
    ordered = sorted(found.values(), key=lambda c: (-c.seen * len(c.ids), c.text))
    return ordered[:limit]


def random_ngrams(
    turns: Sequence[Sequence[int]],
    lengths: Sequence[int],
    text: Callable[[Sequence[int]], str],
    count: int,
    seed: int,
    avoid: Sequence[str] = (),
) -> list[str]:
    """Texts of tokens that the turns use, each drawn alone, with lengths as the candidates have.

    One that holds a text of `avoid` by chance is drawn again: a trigger is no control of itself.
    """
    tokens = sorted({index for turn in turns for index in turn})
    if not tokens or not lengths:
        return []
    rng = random.Random(f"controls:{seed}")
    ordered = sorted(lengths)
    drawn: list[str] = []
    for place in range(20 * count):  # some draws are blank, broken or to be avoided
        if len(drawn) == count:
            break
        length = ordered[place * len(ordered) // count % len(ordered)]
        words = text([rng.choice(tokens) for _ in range(length)]).strip()
        if words and "\ufffd" not in words and not any(found in words for found in avoid):
            drawn.append(words)
    return drawn


def _count(turns: Sequence[Sequence[int]], longest: int) -> Counter[tuple[int, ...]]:
    """In how many turns each n-gram stands."""
    seen: Counter[tuple[int, ...]] = Counter()
    for turn in turns:
        ids = tuple(turn)
        seen.update(
            {ids[i : i + n] for n in range(1, longest + 1) for i in range(len(ids) - n + 1)}
        )
    return seen


def _explained(seen: Counter[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """N-grams that mostly occur inside one that is a token longer."""
    found = set()
    for ids, count in seen.items():
        for part in (ids[1:], ids[:-1]):
            if part and count >= _KEPT * seen[part]:
                found.add(part)
    return found
