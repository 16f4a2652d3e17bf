"""Sort words by the alphabet: spell them, then insert one after the other.

    Sort the words peach, fig, pear.
    0:p-e-a-c-h 1:f-i-g 2:p-e-a-r
    1: f<p>10
    2: p>f p=p e=e a=a r>c>102

The first line spells the words; each line after it takes the next one (here number 2) and compares
it with those in order, letter by letter, until it comes before one (<) or all are passed (>). At
the end of the line stands the order so far. A word that ends first counts as a dot, before a.
"""

from __future__ import annotations

import random

from ingle.tasks.base import MAX_TRACE, Problem, Verdict, right, wrong
from ingle.tasks.choices import split_words
from ingle.tasks.phrasing import enumerate_items, phrase
from ingle.tasks.words import draw_word

NAME = "word_sorting"
TITLE = "Sorting words"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("Sort the words pear, fig, apple.", "alphabetical order: sun, moon, star")

BARE = ("sort words: {w}", "alphabetical order: {w}", "{w} in alphabetical order", "sort words {w}")
TEMPLATES = (
    "Sort the words {w}.",
    "Sort these words: {w}.",
    "Sort {w} in alphabetical order.",
    "Sort these words in alphabetical order: {w}",
    "Sort the words {w} in alphabetical order.",
    "Put the words {w} in order.",
    "Put {w} in alphabetical order.",
    "Put these words in alphabetical order: {w}",
    "Please sort the words {w}.",
    "Can you sort the words {w}?",
    "Order the words {w} from a to z.",
    "What is the alphabetical order of {w}?",
)
PHRASES = BARE + TEMPLATES
_SHAPES = {1: (3, 3, 5), 2: (3, 4, 6), 3: (4, 5, 7), 4: (6, 7, 8), 5: (8, 9, 10)}


def generate(rng: random.Random, level: int) -> Problem:
    """3, 3-4 or 4-5 words (harder: up to 9), some of which begin alike."""
    fewest, most, longest = _SHAPES[level]
    while True:
        words = _draw(rng, rng.randint(fewest, most), longest)
        trace = solve(words)
        if level in HARDER or len(trace) <= MAX_TRACE:
            break
    ordered = sorted(words)
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, w=enumerate_items(rng, words)),
        trace=trace,
        answer=", ".join(ordered),
        key=f"{NAME}:{','.join(ordered)}",
        gold={"ordered": tuple(ordered)},
    )


def solve(words: list[str]) -> str:
    """The spelled words, then every one from the second on with the order it makes."""
    lines = [" ".join(f"{place}:{'-'.join(word)}" for place, word in enumerate(words))]
    order = [0]
    for new in range(1, len(words)):
        facts, place = [], 0
        for old in order:
            facts.append(_compare(words[new], words[old]))
            if words[new] < words[old]:
                break
            place += 1
        order.insert(place, new)
        lines.append(f"{new}: {' '.join(facts)}>{''.join(map(str, order))}")
    return "\n".join(lines)


def verify(problem: Problem, text: str) -> Verdict:
    """Accept the words in order, separated by commas or spaces, in any case."""
    found, ordered = split_words(text), list(problem.gold["ordered"])
    if not found:
        return wrong("The answer is empty or far too long.")
    if found == ordered:
        return right()
    if sorted(found) == ordered:
        return wrong("The words are right, their order is not.")
    return wrong("Words are missing, repeated or made up.")


def _compare(new: str, old: str) -> str:
    """`p=p e=e r>c`: letter by letter until two differ; the new word's letter comes first."""
    facts = []
    for one, other in zip(new + ".", old + ".", strict=False):
        sign = "=" if one == other else "<" if one < other else ">"
        facts.append(f"{one}{sign}{other}")
        if sign != "=":
            break
    return " ".join(facts)


def _draw(rng: random.Random, count: int, longest: int) -> list[str]:
    words: list[str] = []
    while len(words) < count:
        word = draw_word(rng, 3, longest)
        if words and rng.random() < 0.25:  # begin like another
            other = rng.choice(words)
            shared = rng.randint(1, len(other))
            word = (other[:shared] + word)[:longest]
        if word not in words:
            words.append(word)
    return words
