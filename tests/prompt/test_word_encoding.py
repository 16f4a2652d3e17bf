"""Encoding of our own by a tokenizer without merges: token for token what the library gives."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from ingle.models import resolve_model
from ingle.prompt.tokenizer import Tokenizer, well_formed
from ingle.training.tokenizer import build_tokenizer


def library_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer._plain.encode(well_formed(text), add_special_tokens=False).ids


def texts(count: int) -> list[str]:
    """Letters, words of the vocabulary, spaces of all kinds and characters of all planes."""
    rng = random.Random(5)
    parts = (
        " ",
        "\n",
        "\r\n",
        "\t",
        "\x85",
        "\u2028",
        "\x1c",
        "from",
        " from",
        "the",
        "é",
        "\ud800",
    )
    made = []
    for _ in range(count):
        drawn = []
        for _ in range(rng.randint(0, 30)):
            code = rng.choice(
                (rng.randint(32, 126), rng.randint(0, 0x2FF), rng.randint(0, 0x10FFFF))
            )
            drawn.append(rng.choice((chr(code), rng.choice(parts))))
        made.append("".join(drawn))
    return made


@pytest.mark.parametrize("which", ["built", "shipped"])
def test_ids_are_those_of_the_library(which: str, tmp_path: Path) -> None:
    if which == "built":
        build_tokenizer(tmp_path)
    tokenizer = Tokenizer.load(tmp_path if which == "built" else resolve_model(None))
    assert tokenizer._words is not None
    asked = ["", "What is 38 + 45?\n", "<think>", "38+45=83\n83-45=38\n", *texts(3000)]
    for text in asked:
        assert tokenizer.encode(text) == library_ids(tokenizer, text), repr(text)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"model": {"ignore_merges": False}},
        {"model": {"merges": [["a", "b"]]}},
        {
            "pre_tokenizer": {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": True,
                "use_regex": True,
            }
        },
    ],
)
def test_a_tokenizer_of_another_kind_is_the_librarys(
    change: dict[str, Any], tmp_path: Path
) -> None:
    build_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    for field, value in change.items():
        both = isinstance(content[field], dict) and field == "model"
        content[field] = {**content[field], **value} if both else value
    if "merges" in change.get("model", {}):
        content["model"]["vocab"]["ab"] = len(content["model"]["vocab"])
    path.write_text(json.dumps(content), "utf-8")
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer._words is None
    for text in ("What is 38 + 45?", "ABBA ab", *texts(50)):
        assert tokenizer.encode(text) == library_ids(tokenizer, text)
