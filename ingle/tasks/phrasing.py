"""How people type: templates filled in, with loose capitals and missing full stops."""

from __future__ import annotations

import random
from collections.abc import Sequence

BARE_SHARE = 0.25
LOWER_SHARE = 0.35
UNPUNCTUATED_SHARE = 0.35


def phrase(
    rng: random.Random, templates: Sequence[str], bare: Sequence[str], **fields: object
) -> str:
    """A template (or, one time in four, a bare form) filled with `fields`, typed loosely."""
    forms = bare if bare and rng.random() < BARE_SHARE else templates
    return loosen(rng, rng.choice(forms).format(**fields))


def loosen(rng: random.Random, text: str) -> str:
    """Sometimes drop the first capital and the closing punctuation."""
    if rng.random() < LOWER_SHARE and not text[:2].isupper():
        text = text[:1].lower() + text[1:]
    if rng.random() < UNPUNCTUATED_SHARE:
        text = text.rstrip(".?! ") or text
    return text


def enumerate_items(rng: random.Random, items: Sequence[object]) -> str:
    """`3, 12, 7`, `3 12 7`, `3,12,7` or `3, 12 and 7`."""
    words = [str(item) for item in items]
    style = rng.choice((", ", ", ", " ", ",", "and"))
    if style == "and":
        return ", ".join(words[:-1]) + " and " + words[-1]
    return style.join(words)


def vary_case(rng: random.Random, word: str) -> str:
    """The word, now and then with a capital or in capitals."""
    draw = rng.random()
    if draw < 0.08:
        return word.capitalize()
    return word.upper() if draw < 0.11 else word
