"""ingle key: a fresh key, and the line that admits it and nothing else."""

from __future__ import annotations

import json
from hashlib import sha256

from ingle.cli.main import main
from ingle.server.keys import read_key_file


def test_the_line_admits_the_key(tmp_path, capsys):
    assert main(["key", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    file = tmp_path / "keys"
    file.write_text(made["line"] + " name=alice")
    file.chmod(0o600)
    (key,) = read_key_file(file)
    assert (key.name, key.digest) == ("alice", sha256(made["key"].encode()).digest())


def test_for_people(capsys):
    assert main(["key"]) == 0
    out = capsys.readouterr().out
    assert "\n  sk-ingle-" in out and "\n  sha256:" in out and "\x1b" not in out
