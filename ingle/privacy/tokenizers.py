"""tokenizer.json as data: is it a plain byte-level BPE, whole, and what its config says it is?

The weights only know token ids. A file that swaps two of them, or rewrites text on its way in,
changes what the model is told without touching a weight.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from ingle.errors import ConfigError
from ingle.privacy.facts import Check, Finding, Severity, Tokenizer, text_of
from ingle.privacy.folder import read_file, read_object
from ingle.prompt.tokenizer import Tokenizer as Encoding
from ingle.prompt.tokenizer import byte_symbols

_MAX_FILE = 48 << 20  # the largest of these families has 11 MB
_MAX_VOCABULARY, _MAX_MERGES, _MAX_ADDED = 400_000, 1_000_000, 10_000
_MAX_PATTERN = 2000
_NORMALIZERS = ("NFC", "Sequence")  # those of these families; any other rewrites what is asked
_PRE_TOKENIZERS = ("ByteLevel", "Digits", "Sequence", "Split")
_DECODERS = ("ByteLevel", "Sequence")
_PROCESSORS = ("ByteLevel", "Sequence", "TemplateProcessing")
# A repeated group, as in `(a+)+` or `(a|a?)*`, can take time that doubles with each letter.
_REPEATED = re.compile(r"\)(?:[+*]|\{\d*,)")
TEXTS = (
    "Hello, world! It's 3.14 and 1,234,567; don't panic.",
    "你好，世界。こんにちは。안녕하세요. Привет! नमस्ते मरहबा مرحبا 🙂👩‍👩‍👧",
    "def f(x):\n\treturn {'a': x ** 2}  # \\n\r\n\n\n   spaces   ",
    "naïve café Ω ≈ ç √ ∫ ˜ µ ≤ ≥ ÷ <｜User｜> <think> </s> <|EOT|> \u200b\u200d\ufeff\x00\x7f",
    "a" * 3000,
    "a" * 3000 + "!",
    " " * 3000 + ".",
    "1" * 3000,
)
"""What must come back as it went in; the long ones show regular expressions that take for ever."""


class Folder(msgspec.Struct, frozen=True, kw_only=True):
    """Where the files are."""

    folder: Path
    paths: frozenset[str]


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """What this part of the audit gives. added: ids and texts of the tokens added."""

    tokenizer: Tokenizer
    added: tuple[tuple[int, str], ...] = ()
    findings: tuple[Finding, ...] = ()


FILE = "tokenizer.json"


def examine_tokenizer(place: Folder) -> Tokens:
    """Check the file as data; `examine_round_trip` tries it."""
    if FILE not in place.paths:
        finding = _finding("tokenizer.none", "doubt", "The folder holds no tokenizer.json.")
        return Tokens(tokenizer=Tokenizer(), findings=(finding,))
    content, why = _content(place)
    if content is None:
        finding = _finding("tokenizer.damaged", "refuse", why)
        return Tokens(tokenizer=Tokenizer(file=FILE), findings=(finding,))
    try:
        return _Look(content).result(place)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        finding = _finding("tokenizer.damaged", "refuse", "It has not the form of such files.")
        return Tokens(tokenizer=Tokenizer(file=FILE), findings=(finding,))


def examine_round_trip(place: Folder) -> tuple[Check, ...]:
    """Encode and decode some texts with the tokenizer itself."""
    content, _ = _content(place)
    assert content is not None
    try:
        encoding = Encoding(content, 0, 0)
    except ConfigError as error:
        return (Check(id="round-trip", status="failed", sentence=str(error)),)
    lost = [text for text in TEXTS if encoding.decode(encoding.encode(text)) != text]
    sentence = "Texts come back from tokens as they went in."
    if lost:
        sentence = f"Text does not come back as it went in, such as {lost[0][:30]!r}."
    status = "failed" if lost else "ok"
    return (Check(id="round-trip", status=status, sentence=text_of(sentence)),)  # type: ignore[arg-type]


class _Look:
    """The parsed file, and the checks that it passed or failed."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        model = content["model"]
        self.kind = model.get("type", "BPE")
        self.vocabulary: dict[str, int] = model["vocab"]
        self.merges: list[Any] = model.get("merges") or []
        self.added = [(entry["id"], entry["content"]) for entry in content["added_tokens"] or []]
        self.checks: list[Check] = []

    def result(self, place: Folder) -> Tokens:
        plain = isinstance(self.vocabulary, dict) and self.kind == "BPE"
        self.check("kind", plain, "A byte-level BPE.", "Of another kind than byte-level BPE.")
        if not plain:
            return self._tokens()
        sizes = (len(self.vocabulary), len(self.merges), len(self.added))
        small = all(
            a <= b for a, b in zip(sizes, (_MAX_VOCABULARY, _MAX_MERGES, _MAX_ADDED), strict=True)
        )
        self.check("size", small, "Of a usual size.", "Larger than any tokenizer of a release.")
        if not small:
            return self._tokens()
        self._bijection()
        self._merges()
        self._parts()
        self._specials(place)
        return self._tokens()

    def check(self, name: str, good: bool, right: str, wrong: str) -> None:
        status = "ok" if good else "failed"
        sentence = text_of((right if good else wrong)[:300])
        self.checks.append(Check(id=name, status=status, sentence=sentence))  # type: ignore[arg-type]

    def _bijection(self) -> None:
        """Every id has one token and every token one id, without a hole up to the last."""
        ids = Counter(self.vocabulary.values())
        tokens = dict(self.vocabulary)
        clash = False
        for index, text in self.added:
            clash |= tokens.setdefault(text, index) != index
            if text not in self.vocabulary:
                ids[index] += 1
        whole = all(type(index) is int and 0 <= index < 1 << 24 for index in ids)
        once = not clash and max(ids.values(), default=1) == 1 and len(ids) == len(tokens)
        self.check(
            "bijection",
            whole and once,
            "Tokens and ids belong together one by one.",
            "Two tokens share an id, or one token has two.",
        )
        holes = max(ids, default=-1) + 1 - len(ids) if whole else 0
        self.check(
            "holes",
            not holes,
            "Every id up to the last is a token.",
            f"{holes} ids below the last are no token.",
        )
        missing = [symbol for symbol in byte_symbols() if symbol not in self.vocabulary]
        self.check(
            "bytes",
            not missing,
            "All 256 bytes are tokens.",
            f"{len(missing)} of the 256 bytes are no token.",
        )

    def _merges(self) -> None:
        """Merges are of tokens and make tokens; ids rise with the merges, but for a few swapped."""
        made, broken = [], 0
        for merge in self.merges:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            if left not in self.vocabulary or right not in self.vocabulary:
                broken += 1
            made.append(self.vocabulary.get(left + right, -1))
        broken += made.count(-1)
        self.check(
            "merges",
            not broken,
            "All merges are of tokens and make tokens.",
            f"{broken} merges are not of tokens.",
        )
        falls = sum(a > b for a, b in pairwise(made))
        swapped = 0 < falls <= len(made) // 1000
        self.check(
            "order",
            not swapped,
            "Ids are in the order of the merges, or of their own.",
            f"Ids are in the order of the merges but for {falls} places: swapped?",
        )

    def _parts(self) -> None:
        """Only steps that these families use, and no regular expression that takes for ever."""
        content = self.content
        for part, known in (
            ("normalizer", _NORMALIZERS), ("pre_tokenizer", _PRE_TOKENIZERS),
            ("decoder", _DECODERS), ("post_processor", _PROCESSORS),
        ):  # fmt: skip
            strange = sorted({str(kind) for kind in _kinds(content.get(part))} - set(known))
            self.check(
                part,
                not strange,
                f"The {part} is of a known kind.",
                f"The {part} has steps that no release has: {', '.join(strange)}.",
            )
        wild = [p for p in _patterns(content.get("pre_tokenizer")) if _is_wild(p)]
        self.check(
            "patterns",
            not wild,
            "The regular expressions are simple.",
            f"A regular expression may take for ever: {''.join(wild)[:60]!r}.",
        )

    def _specials(self, place: Folder) -> None:
        """The tokens that configs name are there, with the ids that they name."""
        names, config = (
            read_object(place.folder, place.paths, "tokenizer_config.json"),
            read_object(place.folder, place.paths, "config.json"),
        )
        ids = {text: index for index, text in self.added}
        wrong = []
        for end in ("bos", "eos"):
            named, index = names.get(f"{end}_token"), config.get(f"{end}_token_id")
            text = named.get("content") if isinstance(named, dict) else named
            if isinstance(text, str) and text not in ids:
                wrong.append(f"{end} is named {text!r}, which is no special token")
            listed = index if isinstance(index, list) else [index]
            if index is not None and isinstance(text, str) and ids.get(text) not in listed:
                wrong.append(f"{end} has the id {ids.get(text)}, config.json says {index}")
        decoder = names.get("added_tokens_decoder")
        for number, entry in (decoder if isinstance(decoder, dict) else {}).items():
            token = entry.get("content") if isinstance(entry, dict) else None
            if isinstance(token, str) and str(ids.get(token)) != number:
                wrong.append(f"tokenizer_config.json gives {token!r} the id {number}")
        self.check(
            "specials", not wrong, "Special tokens are where the configs say.", "; ".join(wrong[:3])
        )
        last = max((*self.vocabulary.values(), *ids.values()), default=0)
        size = config.get("vocab_size")
        fits = not isinstance(size, int) or last < size
        self.check(
            "vocabulary",
            fits,
            "The model has a row for every token.",
            f"Token {last} has no row in a model of {size}.",
        )
        words = [
            t for _, t in self.added if re.fullmatch(r"\w{2,}|[^<>|｜\[\]▁]{12,}", t) and t.strip()
        ]
        self.check(
            "words",
            not words,
            "No ordinary word is a special token.",
            f"Ordinary words are special tokens, such as {''.join(words[:1])!r}.",
        )

    def _tokens(self) -> Tokens:
        failed = [check for check in self.checks if check.status == "failed"]
        doubtful = ("order", "words", "holes", "normalizer")
        return Tokens(
            tokenizer=Tokenizer(
                file=FILE,
                vocabulary=len(self.vocabulary),
                merges=len(self.merges),
                specials=len(self.added),
                checks=tuple(self.checks),
            ),
            added=tuple((index, text_of(text)) for index, text in self.added[:_MAX_ADDED]),
            findings=tuple(
                _finding(
                    f"tokenizer.{check.id}",
                    "doubt" if check.id in doubtful else "refuse",
                    check.sentence,
                )
                for check in failed
            ),
        )


def _content(place: Folder) -> tuple[dict[str, Any] | None, str]:
    """The parsed file, or None and why not."""
    raw = read_file((place.folder / FILE).resolve(), _MAX_FILE + 1)
    if len(raw) > _MAX_FILE:
        return None, "It is larger than any tokenizer of a release."
    try:
        content = json.loads(raw, object_pairs_hook=_pairs)
    except (ValueError, RecursionError):
        return None, "It is no valid JSON, or has a key twice."
    return (content, "") if isinstance(content, dict) else (None, "It is no JSON object.")


def _pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(found)
    if len(out) < len(found):
        raise ValueError("a key occurs twice")
    return out


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """A step and the steps of a sequence, however deep."""
    waiting = [part]
    while waiting:
        step = waiting.pop()
        if isinstance(step, dict):
            yield step
            for key in ("normalizers", "pretokenizers", "decoders", "processors"):
                waiting += step.get(key) or []


def _kinds(part: Any) -> Iterator[Any]:
    return (step.get("type") for step in _steps(part))


def _patterns(part: Any) -> Iterator[str]:
    for step in _steps(part):
        pattern = step.get("pattern")
        if isinstance(pattern, dict):
            yield str(pattern.get("Regex", ""))


def _is_wild(pattern: str) -> bool:
    """Too long, or with a repeated group, as no release has; classes and escapes are left out."""
    plain = re.sub(r"\\.|\[(?:\\.|\[[^]]*\]|[^]\\])*\]", "x", pattern)
    return len(pattern) > _MAX_PATTERN or bool(_REPEATED.search(plain))


def _finding(name: str, severity: Severity, sentence: str) -> Finding:
    return Finding(id=name, severity=severity, file=FILE, sentence=sentence)
