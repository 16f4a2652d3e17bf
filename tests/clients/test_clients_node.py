"""Clients for Node: runs the test files in `node/`, each with Node's own test runner."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from scripted import THOUGHT
from serving import Live
from weather import DEGREES, HEARD, QUESTION

FOLDER = Path(__file__).parent / "node"
NODE = shutil.which("node")

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(NODE is None, reason="Node is not installed"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules").is_dir(), reason="its packages are not: run make clients"
    ),
]


@pytest.mark.parametrize("file", sorted(file.name for file in FOLDER.glob("*.test.mjs")))
def test_file(file: str, scripted: Live, reasoner: Live) -> None:
    facts = {
        "scripted": {"base": scripted.base, "model": scripted.model},
        "reasoner": {"base": reasoner.base, "model": reasoner.model},
        "thought": THOUGHT,
        "question": QUESTION,
        "heard": HEARD,
        "degrees": DEGREES,
    }
    assert NODE is not None
    done = subprocess.run(
        [NODE, "--test", "--test-reporter=tap", file],
        cwd=FOLDER,
        env=os.environ | {"INGLE_FACTS": json.dumps(facts)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    counts = dict(re.findall(r"^# (\w+) (\d+)$", done.stdout, re.M))
    assert done.returncode == 0 and counts["fail"] == "0", done.stdout + done.stderr
    assert counts["pass"] == counts["tests"] != "0"
    assert scripted.idle()
