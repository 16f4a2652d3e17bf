"""The shipped model's tokenizer: known words are one token, everything else single bytes.

A Hugging Face `tokenizer.json` of 16 specials, the 256 byte symbols, and the words of the
questions and answers, the most frequent first. There are no merges: a word is either known whole
or spelled out, so digits, operators and the letters of spelling tasks are always visible.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ingle.errors import ConfigError
from ingle.prompt.tokenizer import byte_symbols
from ingle.tasks import ALL_TASKS, FIRST, chat, countdown, small_talk
from ingle.tasks.words import COMMON, KNOWN

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
SPECIALS = (BOS, EOS, PAD, "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
RESERVED = tuple(f"<｜reserved▁{number}｜>" for number in range(9))

_SPLIT = r" ?[A-Za-z]+|\s|."
_FIELD = re.compile(r"\{[a-z]+\}")
# Single letters stay bytes: " a" is a word, but also a letter of a trace.
_WORD = re.compile(r" ?[A-Za-z]{2,}")
_TRACE_WORDS = (" from",)


def build_tokenizer(
    folder: Path, vocab_size: int = 512, model_max_length: int = 2048,
    tasks: Sequence[str] = FIRST,
) -> None:  # fmt: skip
    """Write `tokenizer.json` and `tokenizer_config.json`, the same bytes for the same code.

    tasks: names of the tasks whose words it knows, small talk among them. Raises ConfigError where
    `vocab_size` has no room for the specials and the 256 bytes.
    """
    room = vocab_size - len(SPECIALS) - len(RESERVED) - 256
    if room < 0:
        raise ConfigError(f"vocab_size {vocab_size} is too small; at least {vocab_size - room}.")
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "tokenizer.json", _tokenizer(known_words(tasks)[:room]))
    _write(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_eos_token": False,
            "bos_token": BOS,
            "clean_up_tokenization_spaces": False,
            "eos_token": EOS,
            "model_max_length": model_max_length,
            "pad_token": PAD,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )


def known_words(tasks: Sequence[str] = FIRST) -> list[str]:
    """Words worth a token, with their leading space: answers and traces first, small talk last.

    A word of the spelling tasks is left out unless it is always trained (`KNOWN`): how a token is
    spelled can only be learned by heart.
    """
    talk = chat if chat.NAME in tasks else small_talk
    answers = Counter(_words([talk.ANSWER, countdown.NO_WAY]))
    asked = _count(ALL_TASKS[name].PHRASES for name in tasks if name != talk.NAME)
    said = _count([talk.PHRASES])
    words = [*_TRACE_WORDS]
    for counted in (answers, asked, said):
        words += sorted(counted, key=lambda word: (-counted[word], word))
    spelled = set(COMMON).difference(KNOWN)
    return [word for word in dict.fromkeys(words) if word.strip() not in spelled]


def _count(groups: Iterable[Iterable[str]]) -> Counter[str]:
    """Word counts; the first word of a form also without its capital, as people type."""
    counted: Counter[str] = Counter()
    for forms in groups:
        for form in forms:
            text = _FIELD.sub("0", form)
            counted.update(_words([text]))
            if text[0].isupper() and not text[:2].isupper():
                counted.update(_words([text[0].lower() + text[1:]])[:1])
    return counted


def _words(texts: Iterable[str]) -> list[str]:
    return [word for text in texts for word in _WORD.findall(text)]


def _tokenizer(words: list[str]) -> dict[str, object]:
    specials = (*SPECIALS, *RESERVED)
    symbols = byte_symbols()
    entries = (*specials, *symbols, *(word.replace(" ", symbols[ord(" ")]) for word in words))
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    split = {
        "type": "Split",
        "pattern": {"Regex": _SPLIT},
        "behavior": "Isolated",
        "invert": False,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index, content in enumerate(specials)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {entry: index for index, entry in enumerate(entries)},
            "merges": [],
        },
    }


def _write(path: Path, content: dict[str, object]) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
