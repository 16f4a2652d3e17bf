"""Every way a pull can be refused: a type, a sentence that says what to do, exit code 1."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from fake_hub import REPO, WEIGHTS, pull, receipt

from ingle.cli.main import main
from ingle.hub import fetch


def unknown(hub):
    return {"repo": "owner/unknown"}


def stranger(hub):
    hub.token = "hf_another"


def gated(hub):
    hub.gated = True


def forbidden(hub):
    hub.statuses = {"config.json": [403]}


def pickles_only(hub):
    del hub.files["model.safetensors"]


def login_page(hub):
    hub.change_list = lambda reply: b"<html>Welcome to the hotel</html>"


def odd_reply(hub):
    hub.change_list = lambda reply: [1]


def broken(hub):
    hub.statuses = {"": [500]}


@pytest.mark.parametrize(
    ("cause", "code", "says"),
    [(unknown, "repository_not_found", "owner/unknown"), (stranger, "access_denied", "HF_TOKEN"),
     (gated, "access_denied", "accept its terms"), (forbidden, "access_denied", "HF_TOKEN"),
     (pickles_only, "pull_failed", "no *.safetensors"), (login_page, "pull_failed", "HF_ENDPOINT"),
     (odd_reply, "pull_failed", "HF_ENDPOINT"), (broken, "pull_failed", "500")],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_refusals_say_what_to_do(hub, tmp_path, capsys, cause, code, says):
    # one worker: another one would be stopped in the middle of a file
    exit_code, reply, err = pull(capsys, "--workers", "1", **(cause(hub) or {}))
    assert (exit_code, reply["error"]["code"]) == (1, code)
    assert says in reply["error"]["message"]
    assert err == f"ingle: {reply['error']['message']}\n"
    assert receipt(reply) == sorted(seen.line for seen in hub.seen)
    assert not list(tmp_path.rglob("snapshots"))


def test_no_network(hub, monkeypatch, capsys):
    with socket.socket() as unused:  # bound, not listening: nobody answers, nobody else gets it
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", f"http://{host}")
        code, reply, err = pull(capsys)
    assert (code, reply["error"]["code"]) == (1, "network_error")
    assert host in err
    assert [r["status"] for r in reply["requests"]] == [None]
    for nonsense in ("nonsense", "ftp://x", "http://[", "http://x:port"):
        monkeypatch.setenv("HF_ENDPOINT", nonsense)
        assert pull(capsys)[1]["error"]["code"] == "pull_failed"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in pull(capsys)[2]
    assert not hub.seen


def test_files_that_do_not_fit_are_refused_before(hub, tmp_path, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 0, len(WEIGHTS)))
    code, reply, _ = pull(capsys)
    assert (code, reply["error"]["code"]) == (1, "disk_full")
    assert len(hub.seen) == 1
    assert not (tmp_path / "hub").exists()
    assert main(["pull", REPO, "--dry-run"]) == 0
    assert "does not fit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "disk_full"), (errno.EACCES, "pull_failed")]
)
def test_disks_that_fail_on_the_way(hub, cache, monkeypatch, capsys, number, code):
    def replace(*paths: Path) -> None:
        raise OSError(number, os.strerror(number), *paths)

    monkeypatch.setattr(fetch.os, "replace", replace)
    exit_code, reply, err = pull(capsys, "--workers", "1")
    assert (exit_code, reply["error"]["code"]) == (1, code)
    assert "HF_HUB_CACHE" in err and str(cache) not in err


def test_two_pulls_of_one_repository(hub, cache, capsys):
    from filelock import FileLock

    path = cache.parent / ".locks" / cache.name / "ingle-pull.lock"
    path.parent.mkdir(parents=True)
    with FileLock(path):
        code, reply, _ = pull(capsys)
    assert (code, len(hub.seen)) == (1, 1)
    assert "Another" in reply["error"]["message"]


def test_without_the_extra(hub, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, reply, _ = pull(capsys)
    assert (code, reply["error"]["code"]) == (1, "missing_extra")
    assert "pip install 'ingle[hub]'" in reply["error"]["message"]
