"""Addresses in text files: URLs, IP addresses and host names, as text. None is ever contacted.

Only what is spelled out is found: an address that code puts together while it runs is not.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from bisect import bisect_right
from collections import Counter
from typing import Literal

from ingle.privacy.facts import Address, Finding, Seen
from ingle.privacy.folder import Entry, read_file
from ingle.privacy.statement import PREDICATE_TYPE, PROVENANCE, STATEMENT_TYPE

_PIECE = 1 << 20
_MAX_TEXT = 32 << 20
_MAX_FOUND = 200  # of one file
_END = rb"""[^\s"'`<>\\^{|}()\[\]]"""
_SCHEMES = rb"https?|wss?|ftps?|ssh|git|tcp|udp|file|s3|gs|hf"
_URL = re.compile(
    rb"\b(?:" + _SCHEMES + rb")://(?:\[[0-9a-f:.]{2,45}\])?" + _END + rb"{0,500}", re.I
)
_IPV4 = re.compile(rb"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])")
_IPV6 = re.compile(rb"(?<![\w:.])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?![\w:.])", re.I)
_ENDINGS = (
    rb"com|net|org|io|ai|cn|dev|app|co|xyz|info|me|ru|de|uk|eu|us|fr|jp|kr|in|tk|top|site|online|"
    rb"local|internal|onion|cloud|gov|edu|mil"
)
_LABELS = rb"(?<![\w.@/-])(?:[a-z0-9][a-z0-9-]{0,62}\.){1,8}"
_HOST = re.compile(_LABELS + rb"(?:" + _ENDINGS + rb")(?![\w-]|\.\w)", re.I)
_CODE = ("python", "script", "notebook", "template", "config", "text")
"""Kinds in which a bare host name is no prose and no piece of a vocabulary."""
_SPEECH = ("card", "document", "licence")
_FORMATS = {("url", STATEMENT_TYPE), ("url", PREDICATE_TYPE)}
"""What a statement's format is called: the names have the form of addresses."""


def examine_addresses(entry: Entry) -> Seen:
    """The addresses of one text file."""
    assert entry.source is not None
    counts: Counter[tuple[Literal["url", "ip", "host"], str]] = Counter()
    for offset in range(0, min(entry.bytes, _MAX_TEXT), _PIECE):
        # the pieces overlap by the longest address; one that is cut is found whole in the next
        piece = read_file(entry.source, _PIECE + 600, offset)
        for kind, found, start in _find(piece, entry.kind):
            if start < _PIECE:
                counts[kind, found.decode("utf-8", "backslashreplace")] += 1
        if len(counts) > _MAX_FOUND:
            break
    names = _FORMATS if entry.path == PROVENANCE else set()
    listed = sorted(counts.keys() - names)[:_MAX_FOUND]
    addresses = tuple(
        Address(file=entry.path, kind=kind, text=text, count=counts[kind, text])
        for kind, text in listed
    )
    findings = []
    if len(counts) > _MAX_FOUND:
        sentence = f"Holds more than {_MAX_FOUND} different addresses; not all are listed."
        findings.append(("address.many", sentence))
    if addresses and entry.kind not in _SPEECH:
        sentence = "Holds addresses where releases have none; none is contacted."
        findings.append(("address.unusual", sentence))
    return Seen(
        addresses=addresses,
        findings=tuple(
            Finding(id=name, severity="note", file=entry.path, sentence=sentence)
            for name, sentence in findings
        ),
    )


def _find(piece: bytes, kind: str) -> list[tuple[Literal["url", "ip", "host"], bytes, int]]:
    found: list[tuple[Literal["url", "ip", "host"], bytes, int]] = []
    spans: list[tuple[int, int]] = []
    if b"://" in piece:
        for match in _URL.finditer(piece):
            if not match[0].endswith(b"//"):
                spans.append(match.span())
                found.append(("url", match[0].rstrip(b".,;:!?*"), match.start()))
    if kind == "tokenizer":  # a vocabulary is full of pieces of addresses
        return found
    for mark, pattern in ((b".", _IPV4), (b":", _IPV6)):
        for match in pattern.finditer(piece) if mark in piece else ():
            if _is_ip(match[0].decode()) and not _inside(match.start(), spans):
                found.append(("ip", match[0], match.start()))
    if kind in _CODE and b"." in piece:
        for match in _HOST.finditer(piece):
            if not _inside(match.start(), spans):
                found.append(("host", match[0], match.start()))
    return found


def _inside(place: int, spans: list[tuple[int, int]]) -> bool:
    at = bisect_right(spans, (place, sys.maxsize)) - 1
    return at >= 0 and place < spans[at][1]


def _is_ip(text: str) -> bool:
    if ":" in text and len(re.findall(r"[0-9a-f]+", text, re.I)) < 2:
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
