"""Every verb but `pull` under strace: after the seal no call opens a way out, before it only the
listener of `serve` does."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from ingle.cli.main import NEVER_SEALED, VERBS
from ingle.models import resolve_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]
LINE = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)= (-?\d+)")
CALLS = "socket,connect,bind,seccomp,clone,clone3,fork,vfork"
CHAT = {"messages": [{"role": "user", "content": "What is 47 + 85?"}], "max_tokens": 4}


def opened(trace: Path) -> tuple[list[str], list[str], int]:
    """Calls that opened something before the seal, and after it; and how often a seal was closed.

    The witness of `serve`, forked before the seal, is outside it and not counted. Neither is a call
    that its process was killed for: what strace shows of it is the number it was made with.
    """
    sealed: set[str] = set()
    main = ""
    before, after, seals = [], [], 0
    for line in trace.read_text(errors="replace").splitlines():
        if "killed by SIGSYS" in line and after and after[-1].split()[0] == line.split()[0]:
            after.pop()
        if (found := LINE.match(line)) is None:
            continue
        pid, name, _, result = found.groups()
        main = main or pid
        if name in ("clone", "clone3", "fork", "vfork"):
            if pid in sealed and int(result) > 0:
                sealed.add(result)
        elif name == "seccomp":
            if int(result) == 0 and "SET_MODE_FILTER" in line:
                sealed.add(pid)
                seals += 1
        elif int(result) >= 0 and pid in sealed:
            after.append(line)
        elif int(result) >= 0 and pid == main and name != "bind":
            before.append(line)
    return before, after, seals


def traced(trace: Path, arguments: list[str], folder: Path, **options) -> subprocess.Popen:
    """Python under strace, which stops it at those calls only."""
    watch = ["-f", "--seccomp-bpf", "-q", "-e", f"trace={CALLS}", "-e", "signal=SIGSYS"]
    environment = {**os.environ, "INGLE_CACHE": str(folder / "state")}
    return subprocess.Popen(
        ["strace", *watch, "-o", trace, sys.executable, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=folder, **options,
    )  # fmt: skip


def lines_of(folder: Path) -> dict[str, list[list[str]]]:
    """Short command lines of each verb, the last of which is its own."""
    body, requests, rows = folder / "body.json", folder / "in.jsonl", folder / "rows.jsonl"
    body.write_text(json.dumps(CHAT))
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}
    requests.write_text(json.dumps(line) + "\n")
    answered = [*CHAT["messages"], {"role": "assistant", "content": "132"}]
    rows.write_text(json.dumps({"messages": answered}) + "\n")
    shipped, model = str(resolve_model(None)), str(folder / "model")
    short = ["--steps", "1", "--no-compile", "--task", "letter_counting", "--levels", "1"]
    tune = ["sft", shipped, "--data", str(rows), "--lora", "4", "--epochs", "1", "--out", "tuned"]
    student = ["--student", shipped, "--teacher", shipped]
    return {
        "key": [["key"]],
        "ls": [["ls"]],
        "doctor": [["doctor"]],
        "explain": [["explain", str(body), str(body)]],
        "generate": [["generate", "-p", "47+85=", "--max-tokens", "4"]],
        "chat": [["chat", "--max-tokens", "4"]],
        "batch": [["batch", str(requests), "out.jsonl"]],
        "eval": [["eval", "-n", "1"]],
        "audit": [["audit"]],
        "audit behaviour": [["audit", "behaviour", "--quick", "--part", "thinking"]],
        "train": [["train", "nano", "--steps", "2", "--no-compile", "--out", "pretrained"]],
        "sft": [tune],
        "merge": [tune, ["merge", shipped, "tuned", "--out", "merged"]],
        "grpo": [["grpo", shipped, *short, "--out", "reinforced"]],
        "distill": [["distill", "on-policy", *student, *short, "--out", "distilled"]],
        "sign": [["sign", model, "--new-key", str(folder / "key")]],
        "verify": [
            ["sign", model, "--new-key", str(folder / "key")],
            ["verify", model, "--key", str(folder / "key.pub")],
        ],
    }


# Opens a socket before a seal that forbids none, after it, and in a child.
LEAK = """
import os, socket
from ingle.privacy import seal as module
socket.socket()
whole = module.rules
module.rules = lambda *of, **by: [rule for rule in whole(*of, **by) if rule.name != "sockets"]
module.seal()
socket.socket()
if os.fork() == 0:
    socket.socket()
    os._exit(0)
os.wait()
"""


def test_what_is_opened_is_seen(tmp_path):
    process = traced(tmp_path / "trace", ["-c", LEAK], tmp_path)
    process.communicate(timeout=600)
    before, after, seals = opened(tmp_path / "trace")
    assert (process.returncode, len(before), len(after), seals) == (0, 1, 2, 1), (before, after)


TRIED = (
    "key", "ls", "doctor", "explain", "generate", "chat", "batch", "eval", "audit",
    "audit behaviour", "train", "sft", "merge", "grpo", "distill", "sign", "verify",
)  # fmt: skip


@pytest.mark.parametrize("verb", TRIED)
def test_a_verb_opens_nothing(verb, tmp_path):
    shutil.copytree(resolve_model(None), tmp_path / "model")
    for number, line in enumerate(lines_of(tmp_path)[verb]):
        trace = tmp_path / f"trace{number}"
        process = traced(trace, ["-m", "ingle", *line], tmp_path)
        process.communicate(b"What is 47 + 85?\n", timeout=1200)
        before, after, seals = opened(trace)
        # an audit that cannot decide says 2
        assert process.returncode in ((0, 2) if verb == "audit" else (0,)) and seals >= 1
        assert (before, after) == ([], [])


def test_serve_opens_its_listener(tmp_path):
    trace = tmp_path / "trace"
    serve = ["-m", "ingle", "serve", "--port", "0", "--json", "--log", "off"]
    process = traced(trace, serve, tmp_path)
    facts = json.loads(process.stdout.readline())
    request = urllib.request.Request(
        facts["openai_base_url"] + "/chat/completions",
        json.dumps(CHAT).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=600) as reply:
        assert reply.status == 200
    os.kill(facts["seal"]["pid"], signal.SIGTERM)
    process.communicate(timeout=600)
    before, after, seals = opened(trace)
    assert process.returncode == 0 and seals == 1
    assert len(before) == 1 and "SOCK_STREAM" in before[0]
    assert after == []


def test_no_verb_is_forgotten(tmp_path):
    assert set(lines_of(tmp_path)) == set(TRIED)
    assert {*TRIED, "serve"} == set(VERBS) - set(NEVER_SEALED)
