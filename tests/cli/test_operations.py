"""ingle serve as operators meet it: probes, the log, draining, what other users can see."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ingle.cli.main import main
from ingle.cli.serve import listen

KEY = "correct-horse-battery"
ASK = {"messages": [{"role": "user", "content": "What is 47 + 85?"}]}
# an answer that would go on for the whole context: end of sequence is id 1 in our tokenizer
LONG = {**ASK, "stream": True, "logit_bias": {"1": -100}}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """`ingle serve` in a process of its own and a client for it; not waited for."""
    port = free_port()
    command = [sys.executable, "-m", "ingle", "serve", "--port", str(port), "--json", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
                yield process, client
        finally:
            process.kill()


def announced(process: subprocess.Popen[str]) -> dict:
    return json.loads(process.stdout.readline())


def listening(pid: int) -> list[str]:
    """Local addresses a process listens on, in this network or in its own."""
    links = [fd.readlink() for fd in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {m[1] for link in links if (m := re.match(r"socket:\[(\d+)\]", str(link)))}
    found = []
    for network, table in itertools.product(("self", pid), ("tcp", "tcp6", "udp", "udp6")):
        for line in Path(f"/proc/{network}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (table.startswith("udp") or fields[3] == "0A"):
                found.append(fields[1])
    return sorted(set(found))


def test_the_shipped_reasoner_from_first_probe_to_last_answer():
    """Ready is 503 while loading and draining; open streams end; the exit code is 0."""
    with serving("--log", "json", "--drain-seconds", "60") as (process, client):
        early = []
        while not early or early[-1][1] == 503:
            try:
                early.append((client.get("/health").status_code, client.get("/ready").status_code))
            except httpx.ConnectError:  # the process has only just begun
                continue
        assert {health for health, _ in early} == {200}
        assert early[0][1] == 503 and early[-1][1] == 200
        announced(process)
        assert client.get("/ready").json()["status"] == "ok"

        ended = []

        def stream() -> None:
            with httpx.stream(
                "POST",
                f"{client.base_url}/v1/chat/completions",
                json={**LONG, "max_tokens": 200},
                timeout=60,
                trust_env=False,
            ) as reply:
                ended.extend(reply.iter_lines())  # fmt: skip

        reading = threading.Thread(target=stream)
        reading.start()
        while not ended and reading.is_alive():
            if client.get("/health").json()["open_requests"]:
                break
        process.send_signal(signal.SIGTERM)
        refused = []
        while reading.is_alive():
            try:
                refused.append(client.post("/v1/chat/completions", json=ASK))
                refused.append(client.get("/ready"))
            except httpx.TransportError:  # it has closed its port: the stream ended meanwhile
                break
            time.sleep(0.05)
        reading.join(60)
        out, err = process.communicate(timeout=60)
        assert "data: [DONE]" in ended
        assert refused and {reply.status_code for reply in refused} <= {200, 503}
        late = [reply for reply in refused if reply.status_code == 503]
        assert late and all(int(reply.headers["retry-after"]) >= 1 for reply in late)
        assert (process.returncode, out) == (0, "")
    lines = [json.loads(line) for line in err.splitlines()]
    assert len({line["id"] for line in lines}) == len(lines)
    (streamed,) = [line for line in lines if line["completion_tokens"] == 200]
    assert (streamed["finish_reason"], streamed["status"]) == ("length", 200)
    assert "47" not in re.sub(r'"(time|id|ms|ttft_ms)":[^,]+', "", err)


def test_draining_ends_at_its_limit_and_tells_the_reader(model_folder):
    with serving(str(model_folder), "--drain-seconds", "0.2", "--log", "off") as (process, client):
        announced(process)
        started = time.monotonic()
        with client.stream("POST", "/v1/chat/completions", json=LONG) as reply:
            lines = reply.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            rest = "\n".join(lines)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and (out, err) == ("", "")
        assert "[DONE]" in rest or '"code":"engine_failed"' in rest
        assert time.monotonic() - started < 30


def test_a_second_signal_does_not_wait(model_folder):
    with serving(str(model_folder), "--drain-seconds", "600", "--log", "off") as (process, client):
        announced(process)
        held = socket.create_connection(("127.0.0.1", client.base_url.port))
        body = json.dumps(LONG).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        head += "Content-Type: application/json"
        held.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        held.recv(100)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        process.communicate(timeout=30)
        assert process.returncode == 0
        held.close()


def test_sigterm_while_loading_is_a_clean_end():
    with serving() as (process, client):
        while True:
            try:
                if client.get("/ready").status_code == 503:
                    break
            except httpx.ConnectError:
                continue
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "")


def test_a_model_that_cannot_be_loaded_is_an_error_although_the_port_was_open(tmp_path):
    with serving(str(tmp_path), "--log", "off") as (process, _):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "error" in json.loads(out) and err.startswith("ingle: ")


def test_what_other_users_of_the_machine_can_see(model_folder, tmp_path):
    """One listening socket, on the address asked; no key in arguments, environment or log."""
    file = tmp_path / "keys"
    file.write_text(f"{KEY} name=alice\n")
    file.chmod(0o600)
    with serving(str(model_folder), "--api-key-file", str(file)) as (process, client):
        assert announced(process)["api_key_needed"] is True
        port = f"{client.base_url.port:04X}"
        seen = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{process.pid}/environ")
        if os.geteuid() == 0:
            assert listening(process.pid) == [f"0100007F:{port}"]
            seen += environment.read_bytes()
        else:
            with pytest.raises(PermissionError):
                environment.read_bytes()
        assert KEY.encode() not in seen
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert re.search(r"Max core file size +0 ", limits)
        assert client.post("/v1/chat/completions", json=ASK).status_code == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        body = {**ASK, "max_tokens": 4}
        assert client.post("/v1/chat/completions", json=body, headers=headers).status_code == 200
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    # stderr is no terminal here, so that the log is on
    assert [json.loads(line)["key"] for line in err.splitlines()] == [None, "alice"]
    assert KEY not in err


def test_without_a_key_only_this_machine_is_let_in(tmp_path, capsys):
    for host in ("0.0.0.0", "::", "192.0.2.7"):
        assert main(["serve", str(tmp_path), "--host", host, "--port", "0"]) == 1
        err = capsys.readouterr().err
        assert "--api-key-file" in err and "--anyone-may-use-this" in err


def test_unless_told_so_in_words(model_folder):
    arguments = ("--host", "0.0.0.0", "--anyone-may-use-this", "--log", "off")
    with serving(str(model_folder), *arguments) as (process, client):
        assert announced(process)["api_key_needed"] is False
        assert client.get("/v1/models").status_code == 200
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert "Anyone who can reach" in err


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5"])
def test_limits_are_positive_numbers(value):
    with pytest.raises(SystemExit) as stop:
        main(["serve", "--rate-requests", value])
    assert stop.value.code == 2


def test_small_answers_are_sent_at_once():
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
