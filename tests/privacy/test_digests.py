"""Every file hashed, none that should not be is opened, and a change is never missed."""

from __future__ import annotations

import os
import socket
from hashlib import sha1, sha256
from pathlib import Path

import pytest

from ingle.errors import WeightsError
from ingle.privacy import digests
from ingle.privacy.digests import git_blob_digest, hash_files


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGLE_CACHE", str(tmp_path / "state"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths that were opened by the module."""
    seen: list[str] = []
    real = os.open

    def spy(path, flags, *rest, **named):
        seen.append(os.fsdecode(path))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(digests.os, "open", spy)
    return seen


def found(folder: Path) -> dict[str, str]:
    return {fact.path: fact.sha256 for fact in hash_files(folder)}


def test_every_file_is_listed_with_its_digest_and_size(tmp_path):
    folder = tmp_path / "model"
    (folder / "deep" / "er").mkdir(parents=True)
    contents = {
        "a.bin": b"x" * (3 << 20), "empty": b"", ".hidden": b"h", "deep/b": b"2", "deep/er/c": b"3",
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    facts = hash_files(folder)
    assert [fact.path for fact in facts] == sorted(contents)
    for fact in facts:
        assert fact.sha256 == sha256(contents[fact.path]).hexdigest()
        assert fact.bytes == len(contents[fact.path])


def test_what_is_no_plain_file_inside_is_listed_and_never_opened(tmp_path, opened):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_text("outside")
    (folder / "inner").mkdir()
    (folder / "plain").write_text("inside")
    os.mkfifo(folder / "pipe")
    os.mkfifo(tmp_path / "far-pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "door"))
    for name, target in {
        "out": "../secret", "absolute": str(tmp_path / "secret"), "etc": "/etc/passwd",
        "zero": "/dev/zero", "loop": "loop", "a": "b", "b": "a", "nothing": "no-such-file",
        "up": "..", "self": ".", "inner/back": "..", "to-pipe": "pipe", "far": "../far-pipe",
        "proc": "/proc/self/environ",
    }.items():  # fmt: skip
        (folder / name).symlink_to(target)
    (folder / "twin").symlink_to("plain")
    rows = found(folder)
    server.close()
    inside = sha256(b"inside").hexdigest()
    assert rows.pop("plain") == inside
    assert rows.pop("twin") == inside
    assert len(rows) == 16
    assert set(rows.values()) == {""}
    read = [Path(path).name for path in opened if "state" not in path]
    assert set(read) == {"plain"}


def test_a_device_is_not_opened(tmp_path, opened):
    folder = tmp_path / "model"
    folder.mkdir()
    try:
        os.mknod(folder / "zero", 0o20666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")
    assert found(folder) == {"zero": ""}
    assert not opened


def test_links_to_the_blobs_of_the_same_repository_are_followed_and_no_others(tmp_path):
    home = tmp_path / "models--org--name"
    folder = home / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (home / "blobs").mkdir()
    (home / "blobs" / "abc").write_text("blob")
    other = tmp_path / "models--org--other" / "blobs"
    other.mkdir(parents=True)
    (other / "abc").write_text("foreign")
    (folder / "good").symlink_to(os.path.relpath(home / "blobs" / "abc", folder))
    (folder / "foreign").symlink_to(os.path.relpath(other / "abc", folder))
    assert found(folder) == {"good": sha256(b"blob").hexdigest(), "foreign": ""}


def test_a_name_that_is_no_text_is_listed(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    with open(os.fsencode(folder) + b"/\xff.bin", "wb") as file:
        file.write(b"x")
    assert found(folder) == {"\\udcff.bin": sha256(b"x").hexdigest()}


def test_too_many_entries_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "MAX_ENTRIES", 20)
    for index in range(21):
        (tmp_path / f"{index}").touch()
    with pytest.raises(WeightsError, match="more than 20 entries"):
        hash_files(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        hash_files(tmp_path / "none")


def test_progress_ends_at_the_whole(tmp_path):
    for index in range(5):
        (tmp_path / f"{index}").write_bytes(b"x" * (2 << 20))
    heard: list[tuple[int, int]] = []
    hash_files(tmp_path, lambda done, total: heard.append((done, total)))
    assert heard[-1] == (10 << 20, 10 << 20)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


def test_an_error_of_the_listener_ends_the_work(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * (8 << 20))

    def broken(done: int, total: int) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        hash_files(tmp_path, broken)


@pytest.fixture
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_SETTLED_NS", -60_000_000_000)


@pytest.mark.usefixtures("_settled")
def test_unchanged_files_are_not_read_again(tmp_path, opened):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_bytes(b"one")
    first = found(folder)
    assert opened
    opened.clear()
    heard: list[tuple[int, int]] = []
    again = hash_files(folder, lambda done, total: heard.append((done, total)))
    assert {fact.path: fact.sha256 for fact in again} == first
    assert not opened
    assert heard == [(3, 3)]


@pytest.mark.usefixtures("_settled")
def test_a_change_with_the_old_size_and_time_is_noticed(tmp_path):
    file = tmp_path / "model" / "a"
    file.parent.mkdir()
    file.write_bytes(b"one")
    before = file.stat()
    first = found(file.parent)
    with file.open("r+b") as stream:
        stream.write(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        3,
        before.st_mtime_ns,
        before.st_ino,
    )
    assert found(file.parent) != first


def test_a_file_changed_just_now_is_not_remembered(tmp_path, opened):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_bytes(b"one")
    found(tmp_path / "model")
    opened.clear()
    found(tmp_path / "model")
    assert opened


@pytest.mark.usefixtures("_settled")
@pytest.mark.parametrize("junk", [b"", b"{", b'{"a": 1}', b"\xff", b"[" * 10_000])
def test_a_damaged_state_file_is_no_more_than_lost_time(tmp_path, junk):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_bytes(b"one")
    first = found(tmp_path / "model")
    (kept,) = (tmp_path / "state" / "digests").iterdir()
    kept.write_bytes(junk)
    assert found(tmp_path / "model") == first


def test_without_a_state_directory_it_works_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("INGLE_CACHE", "/dev/null/none")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_bytes(b"one")
    assert found(tmp_path / "model") == {"a": sha256(b"one").hexdigest()}


def test_the_state_file_names_no_path(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "_SETTLED_NS", -60_000_000_000)
    (tmp_path / "my-secret-model").mkdir()
    (tmp_path / "my-secret-model" / "my-file").write_bytes(b"one")
    found(tmp_path / "my-secret-model")
    (kept,) = (tmp_path / "state" / "digests").iterdir()
    assert b"my-" not in kept.read_bytes() + kept.name.encode()


def test_git_digests_are_gits_own(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"hello\n")
    expected = sha1(b"blob 6\0hello\n").hexdigest()
    assert expected == "ce013625030ba8dba906f756967f9e9ca394464a"  # `git hash-object` says so
    assert git_blob_digest(path, 6) == expected
    assert git_blob_digest(path, 5) == ""
