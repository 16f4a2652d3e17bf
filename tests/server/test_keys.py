"""Key files: what is read from them, what is refused, and that no key leaves them."""

from __future__ import annotations

import gc
from hashlib import sha256
from pathlib import Path

import pytest

from ingle.server.keys import ApiKey, KeyFileError, key_line, new_key, read_key_file
from ingle.server.limits import Limits

KEY = "correct-horse-battery"


@pytest.fixture
def read(tmp_path: Path):
    def read_text(text: str, mode: int = 0o600, defaults: Limits | None = None):
        file = tmp_path / "keys"
        file.write_text(text)
        file.chmod(mode)
        return read_key_file(file, defaults)

    return read_text


def test_plain_keys_and_digests_mean_the_same(read):
    digest = sha256(KEY.encode()).digest()
    assert read(f"# mine\n\n{KEY}\n") == read(f"sha256:{digest.hex()}\n")
    assert read(f"  {KEY}  ")[0] == ApiKey("1", digest)
    assert read(f"sha256:{digest.hex().upper()}")[0].digest == digest


def test_options_name_and_limit_a_key(read):
    defaults = Limits(requests=5, tokens=100)
    lines = [
        f"{KEY}1 name=alice, requests=60, tokens=1000, concurrency=4",
        f"{KEY}2 concurrency=2",
        f"{KEY}3,requests=none",
    ]
    first, second, third = read("\n".join(lines), defaults=defaults)
    assert (first.name, first.limits) == ("alice", Limits(60, 1000, 4))
    assert (second.name, second.limits) == ("2", Limits(5, 100, 2))
    assert (third.name, third.limits) == ("3", Limits(None, 100, None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no key"),
        ("# nothing\n", "no key"),
        ("short", "Line 1 .* fewer than"),
        (f"{KEY}\n{KEY}", "Line 2 .* repeats"),
        (f"{KEY} name=a\n{KEY}x name=a", "Line 2 .* repeats"),
        (f"{KEY} name=a b", "cannot be read"),
        (f"{KEY} name=<script>", "cannot be read"),
        (f"{KEY} requests=0", "cannot be read"),
        (f"{KEY} requests=-1", "cannot be read"),
        (f"{KEY} tokens=1e9", "cannot be read"),
        (f"{KEY} tokens=\u0661", "cannot be read"),
        (f"{KEY} admin=1", "cannot be read"),
        ("sha256:abc", "64 hexadecimal"),
        ("x" * (1 << 20) + "y", "larger than"),
    ],
)
def test_files_that_are_refused_without_being_quoted(read, text, message):
    with pytest.raises(KeyFileError, match=message) as refusal:
        read(text)
    assert KEY not in str(refusal.value) and "script" not in str(refusal.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_open_files_are_refused(read, mode):
    with pytest.raises(KeyFileError, match="open to other users"):
        read(KEY, mode)


def test_missing_files_are_refused_without_their_path(tmp_path):
    with pytest.raises(KeyFileError, match="cannot be read") as refusal:
        read_key_file(tmp_path / "nowhere")
    assert "nowhere" not in str(refusal.value)


def test_no_object_keeps_the_text_of_a_key(read):
    secret = new_key()
    keys = read(f"{secret} name=a")
    gc.collect()
    held = [o for o in gc.get_objects() if type(o) in (ApiKey, tuple) and secret in repr(o)[:500]]
    assert keys and not held


def test_fresh_keys_differ_and_their_line_admits_them(read):
    key = new_key()
    assert key != new_key() and len(key) > 40 and key.isascii()
    assert read(key_line(key))[0].digest == sha256(key.encode()).digest()
    assert key not in key_line(key)
