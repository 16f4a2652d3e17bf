"""ingle pull as a command; what it does is tested in tests/hub."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import ingle
from ingle.cli.main import main


@pytest.mark.parametrize(
    "arguments",
    [[], ["tiny"], ["a/b/c"], ["../b"], ["a/.."], ["a/b--c"], ["a/b.git"], ["-a/b"],
     ["a/" + "b" * 99], ["a/b", "--workers", "0"], ["a/b", "--workers", "x"],
     ["a/b", "--revision", "../x"], ["a/b", "--revision", ""], ["a/b", "--revision", "/x"]],
    ids=lambda arguments: " ".join(arguments)[:20],
)  # fmt: skip
def test_wrong_usage_is_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["pull", *arguments])
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_help_is_light():
    code = (
        "import sys, ingle.cli.main as m\n"
        "try: m.main(['pull', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'huggingface_hub', 'httpx2', 'rich') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "--dry-run" in result.stdout and result.stdout.endswith("[]\n")


def test_no_other_room_has_network_code():
    package = Path(ingle.__file__).parent
    clients = r"huggingface_hub|httpx2?|requests|aiohttp|urllib3?\.request|http\.client"
    pattern = re.compile(rf"^\s*(from|import) ({clients})\b", re.MULTILINE)
    rooms = {f.parent.name for f in package.rglob("*.py") if pattern.search(f.read_text("utf-8"))}
    assert rooms == {"hub"}
