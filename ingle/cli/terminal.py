"""Colour only where a person will see it, and Ctrl-C that asks before it kills."""

from __future__ import annotations

import os
import signal
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

DIM, BOLD, EMBER, RESET = "\x1b[2m", "\x1b[1m", "\x1b[38;5;208m", "\x1b[0m"


def has_colour(stream: TextIO) -> bool:
    """Whether to colour a stream: a terminal, and NO_COLOR unset (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def harmless(text: str) -> str:
    """Text without a command to a terminal: control characters but line ends and tabs are shown as
    escapes. A model may write any, and some set a clipboard or a title."""
    return "".join(
        f"\\x{ord(c):02x}" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c
        for c in text
    )


class Styled:
    """A text stream that styles what it writes if it goes to a terminal, and lets nothing in a text
    command that terminal; a pipe or a file gets every text as it is."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.colour = has_colour(stream)

    def write(self, text: str, style: str = "") -> None:
        text = harmless(text) if self.stream.isatty() else text
        self.stream.write(f"{style}{text}{RESET}" if style and self.colour and text else text)
        self.stream.flush()

    def line(self, text: str = "", style: str = "") -> None:
        self.write(text, style)
        self.write("\n")


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C only makes the yielded function true; the second one interrupts."""
    pressed = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    previous = signal.signal(signal.SIGINT, on_signal)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, previous)
