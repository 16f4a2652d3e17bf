"""How much memory there is: the machine's, or what control groups leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingle.engine.storage import _cgroup_rooms, available_memory


def group(folder: Path, limit: str, used: int, version: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, text in zip(names, (limit, str(used)), strict=True):
        (folder / name).write_text(text + "\n")
    (folder / "memory.stat").write_text("anon 5\nactive_file 100\ninactive_file 200\n")


@pytest.mark.parametrize(
    ("version", "line", "folder"),
    [
        (2, "0::/user/job", "user/job"),
        (2, "0::/only/known/outside", ""),
        (1, "4:memory:/user/job", "memory/user/job"),
        (1, "4:memory:/only/known/outside", "memory"),
    ],
)
def test_a_groups_limit_counts_without_its_cached_files(
    version: int, line: str, folder: str, tmp_path: Path
) -> None:
    groups = tmp_path / "cgroup"
    groups.write_text(f"7:blkio:/x\n{line}\n")
    group(tmp_path / "fs" / folder, "10000", 4000, version)
    assert _cgroup_rooms(groups, tmp_path / "fs") == [10000 - 4000 + 300]


def test_no_limit_and_no_groups_leave_the_machines_memory(tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    assert _cgroup_rooms(groups, tmp_path) == []
    groups.write_text("0::/\n")
    group(tmp_path / "fs", "max", 1, 2)
    assert _cgroup_rooms(groups, tmp_path / "fs") == []
    assert 1 << 20 < available_memory() < 1 << 50
