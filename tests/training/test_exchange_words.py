"""Other words for a trained model: what it knew stays where it was, new words begin as letters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ingle.errors import ConfigError
from ingle.models import build_model, load_model, save_model
from ingle.privacy.digests import file_digest
from ingle.prompt.tokenizer import Tokenizer
from ingle.tasks import FIRST, TRAINED
from ingle.training.presets import model_preset
from ingle.training.tokenizer import build_tokenizer
from ingle.training.vocabulary import exchange_words

TEXT = "<think>\n47+85: 7+5+0=12>2 is 3 from 75 qxz"  # words that both know, and bytes


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("parent")
    save_model(build_model(model_preset("nano"), seed=4), folder, torch.float32)
    build_tokenizer(folder, tasks=FIRST)
    return folder


def test_what_both_know_gives_the_same_logits(parent: Path, tmp_path: Path) -> None:
    exchange_words(parent, tmp_path, TRAINED)
    before, after = Tokenizer.load(parent), Tokenizer.load(tmp_path)
    old, new = load_model(parent, torch.float32), load_model(tmp_path, torch.float32)
    ids, others = before.encode(TEXT), after.encode(TEXT)
    assert ids != others  # words have moved
    with torch.no_grad():
        expected, found = old(torch.tensor([ids])), new(torch.tensor([others]))
    assert torch.allclose(found[..., others], expected[..., ids], atol=1e-5)


def test_a_new_word_is_the_mean_of_its_letters(parent: Path, tmp_path: Path) -> None:
    exchange_words(parent, tmp_path, TRAINED)
    before, after = Tokenizer.load(parent), Tokenizer.load(tmp_path)
    (knight,) = after.encode(" knight")
    pieces = before.encode(" knight")
    assert len(pieces) == 7
    old, new = load_model(parent, torch.float32), load_model(tmp_path, torch.float32)
    for table in ("model.embed_tokens.weight", "lm_head.weight"):
        rows, row = old.state_dict()[table][pieces], new.state_dict()[table][knight]
        assert torch.allclose(row, rows.mean(0), atol=1e-6)


def test_back_and_forth_changes_no_token_that_both_have(parent: Path, tmp_path: Path) -> None:
    exchange_words(parent, tmp_path / "there", TRAINED)
    exchange_words(tmp_path / "there", tmp_path / "back", FIRST)
    there = Tokenizer.load(tmp_path / "there")
    known = {there.token_bytes(token) for token in range(there.vocab_size)}
    back = Tokenizer.load(tmp_path / "back")
    kept = [t for t in range(back.vocab_size) if back.token_bytes(t) in known]
    assert 400 < len(kept) < 512
    old, new = load_model(parent, torch.float32), load_model(tmp_path / "back", torch.float32)
    assert torch.equal(old.lm_head.weight[kept], new.lm_head.weight[kept])


def test_a_tokenizer_of_another_kind_is_refused(parent: Path, tmp_path: Path) -> None:
    text = (parent / "tokenizer.json").read_text("utf-8")
    for name in ("config.json", "model.safetensors", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((parent / name).read_bytes())
    (tmp_path / "tokenizer.json").write_text(text.replace('"k": ', '"kk": '), "utf-8")
    with pytest.raises(ConfigError, match="cannot spell"):
        exchange_words(tmp_path, tmp_path / "new", TRAINED)


def test_it_states_what_it_was_made_from(parent: Path, tmp_path: Path) -> None:
    exchange_words(parent, tmp_path, TRAINED)
    stated = json.loads((tmp_path / "provenance.json").read_text("utf-8"))
    assert file_digest(parent / "model.safetensors") in json.dumps(stated)
    assert {row["name"] for row in stated["subject"]} >= {"model.safetensors", "tokenizer.json"}
