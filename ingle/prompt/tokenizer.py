"""Text to token ids and back, over any byte-level Hugging Face `tokenizer.json`.

Text from people and special tokens travel on separate roads: `encode` never yields a special id,
whatever the text says, and `special` is the only way to one. So a message that spells out
`<｜Assistant｜>` or `</think>` stays a message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import tokenizers

from ingle.errors import ConfigError


class Tokenizer:
    """Encoding of plain text, special tokens by name, exact decoding by bytes.

    Every entry of `added_tokens` counts as special: DeepSeek's files list `<think>` and the role
    markers there without the `special` flag.
    """

    def __init__(
        self, content: dict[str, Any], bos: str | int | None, eos: str | int | None
    ) -> None:
        """From the parsed `tokenizer.json`; bos and eos are contents, ids or None.

        Raises ConfigError where the content is not a byte-level tokenizer.
        """
        try:
            added = {entry["content"]: int(entry["id"]) for entry in content["added_tokens"]}
            plain = {**content, "added_tokens": [], "truncation": None, "padding": None}
            # A post-processor only adds specials, and may name those that were taken out.
            plain["post_processor"] = None
            self._plain = tokenizers.Tokenizer.from_str(json.dumps(plain))
        # The library raises bare Exception for a file that it cannot read.
        except Exception as error:
            raise ConfigError(
                "tokenizer.json is damaged or of an unknown form; fetch the model's files again."
            ) from error
        if "ByteLevel" not in _types(content.get("decoder")):
            raise ConfigError("tokenizer.json is not byte-level; only such tokenizers are served.")
        self._special_ids = added
        self._special_names = {index: name for name, index in added.items()}
        self._bytes = {
            index: _to_bytes(symbol) for symbol, index in self._plain.get_vocab().items()
        }
        self._bytes |= {index: name.encode() for index, name in self._special_names.items()}
        self.vocab_size = max(self._bytes, default=-1) + 1
        self._longest = max(map(len, self._bytes.values()), default=1)
        self._words = _Words.of(content, self._plain.get_vocab())
        self.bos_id = self._boundary(bos, "bos")
        self.eos_id = self._boundary(eos, "eos")

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """From a model folder: `tokenizer.json`, and bos and eos from `tokenizer_config.json`.

        Where the tokenizer's config does not name them, `config.json` gives the ids. Raises
        ConfigError for missing or damaged files.
        """
        folder = Path(folder)
        content = read_json_object(folder / "tokenizer.json", required=True)
        names = read_json_object(folder / "tokenizer_config.json", required=False)
        config = read_json_object(folder / "config.json", required=False)
        bos, eos = (
            _content(names.get(f"{end}_token")) or _first(config.get(f"{end}_token_id"))
            for end in ("bos", "eos")
        )
        return cls(content, bos, eos)

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text; the names of special tokens in it are ordinary text, too.

        A lone surrogate, which UTF-8 cannot hold, becomes a replacement character.
        """
        text = well_formed(text)
        if self._words:
            return self._words.encode(text)
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    @cached_property
    def line_end(self) -> list[int]:
        """Ids of the end of a line, of which every worked example has one by itself."""
        return self.encode("\n")

    def least_tokens(self, characters: int) -> int:
        """Tokens that a text so long has at least, known without looking at it.

        A token holds no more characters than it has bytes, and of the characters that Unicode's
        composition joins, which some tokenizers apply before, never more than four make one.
        """
        return -(-characters // (4 * self._longest))

    def special(self, name: str) -> int:
        """The id of a special token such as `<｜User｜>`; ConfigError where there is none."""
        index = self._special_ids.get(name)
        if index is None:
            raise ConfigError(f"The tokenizer has no special token {name}.")
        return index

    def find_special(self, name: str) -> int | None:
        """The id of a special token, None where there is none."""
        return self._special_ids.get(name)

    def is_special(self, index: int) -> bool:
        """Whether the id is a special token."""
        return index in self._special_names

    def token_bytes(self, index: int) -> bytes:
        """The UTF-8 bytes of a token (of its name for a special), b"" for an unused id."""
        return self._bytes.get(index, b"")

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of the ids; bytes that are not UTF-8 become replacement characters."""
        kept = (index for index in ids if not (skip_special and index in self._special_names))
        return b"".join(map(self.token_bytes, kept)).decode("utf-8", errors="replace")

    def _boundary(self, token: str | int | None, end: str) -> int:
        index = self._special_ids.get(token) if isinstance(token, str) else token
        if index is None:
            raise ConfigError(
                f"The tokenizer does not say which token is {end}; "
                f"{end}_token belongs in tokenizer_config.json."
            )
        return index


class _Words:
    """Encoding by a tokenizer without merges, as the reasoner's: a word is one token, or those of
    its bytes. Takes a third of the library's time, which every step of training pays for its
    documents.
    """

    PATTERN = r" ?[A-Za-z]+|\s|."

    def __init__(self, vocabulary: dict[str, int]) -> None:
        names = {_to_bytes(symbol): index for symbol, index in vocabulary.items()}
        self._bytes = [names[bytes([byte])] for byte in range(256)]
        self._ids = {
            name.decode(): index for name, index in names.items() if len(name) > 1 or name.isascii()
        }
        self._pieces = re.compile(self.PATTERN).findall

    @classmethod
    def of(cls, content: dict[str, Any], vocabulary: dict[str, int]) -> _Words | None:
        """None for a tokenizer of another kind."""
        model, split = content.get("model") or {}, content.get("pre_tokenizer") or {}
        parts = split.get("pretokenizers") or [{}]
        expected = {
            "type": "Split", "pattern": {"Regex": cls.PATTERN}, "behavior": "Isolated",
            "invert": False,
        }  # fmt: skip
        whole = model.get("ignore_merges") and not model.get("merges") and len(parts) == 2
        if not whole or content.get("normalizer") or parts[0] != expected:
            return None
        if parts[1].get("use_regex") or parts[1].get("add_prefix_space"):
            return None
        return cls(vocabulary) if set(byte_symbols()) <= set(vocabulary) else None

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in self._pieces(text):
            index = self._ids.get(piece)
            if index is None:
                ids += [self._bytes[byte] for byte in piece.encode()]
            else:
                ids.append(index)
        return ids


def well_formed(text: str) -> str:
    """The text as `encode` reads it, with replacement characters for lone surrogates."""
    return text.encode("utf-8", errors="surrogatepass").decode("utf-8", errors="replace")


@cache
def byte_symbols() -> tuple[str, ...]:
    """The printable character that stands for each of the 256 bytes (GPT-2's byte-level table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in symbols)
    symbols |= {byte: chr(256 + place) for place, byte in enumerate(others)}
    return tuple(symbols[byte] for byte in range(256))


@cache
def _symbol_bytes() -> dict[str, int]:
    return {symbol: byte for byte, symbol in enumerate(byte_symbols())}


def _to_bytes(symbol: str) -> bytes:
    """The bytes of a vocabulary entry; an entry outside the table is its own text."""
    table = _symbol_bytes()
    try:
        return bytes(table[character] for character in symbol)
    except KeyError:
        return symbol.encode()


def _types(decoder: Any) -> set[str]:
    """The type names of a decoder and of the parts of a sequence."""
    if not isinstance(decoder, dict):
        return set()
    parts = decoder.get("decoders") or []
    return {str(decoder.get("type"))}.union(*map(_types, parts))


def read_json_object(path: Path, required: bool) -> dict[str, Any]:
    """A JSON object from a model folder, {} where it may be missing; ConfigError for damage."""
    if not required and not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path.name} is missing in the model folder.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path.name} cannot be read as JSON; fetch the file again.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path.name} should hold one JSON object.")
    return content


def _content(token: Any) -> str | None:
    """The text of a token given as a string or as an object with a `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _first(index: Any) -> int | None:
    """An id given as a number or as a list of them."""
    if isinstance(index, list):
        index = index[0] if index else None
    return index if isinstance(index, int) else None
