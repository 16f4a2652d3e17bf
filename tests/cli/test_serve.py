"""ingle serve as a process: banner, answers, busy ports, a clean end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from ingle.cli.main import main
from ingle.cli.serve import listen
from ingle.errors import ConfigError


def spawn(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ingle", "serve", "--port", "0", "--log", "off", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_serves_and_ends_cleanly_on_ctrl_c(model_folder):
    process = spawn(str(model_folder), "--json")
    facts = json.loads(process.stdout.readline())
    assert facts["model"] == "tiny-model"
    with httpx.Client(base_url=facts["url"], timeout=120, trust_env=False) as client:
        assert client.get("/health").json()["status"] == "ok"
        assert "<title>ingle</title>" in client.get("/").text
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "seed": 3}
        first, second = (client.post("/v1/chat/completions", json=body).json() for _ in range(2))
        assert first["choices"] == second["choices"]
        assert first["usage"]["completion_tokens"] <= 8
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, "", "")


def test_banner_is_for_people_and_sigterm_ends_cleanly(model_folder):
    process = spawn(str(model_folder))
    banner = "".join(process.stdout.readline() for _ in range(6))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "ingle serves tiny-model" in banner
    assert "export OPENAI_BASE_URL=http://127.0.0.1:" in banner
    assert "\x1b" not in banner


def test_busy_port_is_a_clear_error_before_loading(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(tmp_path), "--port", str(port)]) == 1
    assert f"Port {port} is in use" in capsys.readouterr().err


def test_other_machines_need_a_key(tmp_path, capsys):
    assert main(["serve", str(tmp_path), "--host", "0.0.0.0", "--port", "0"]) == 1
    assert "--api-key-file" in capsys.readouterr().err


def test_open_key_file_is_refused(tmp_path, capsys):
    file = tmp_path / "keys"
    file.write_text("0123456789abcdef\n")
    file.chmod(0o644)
    assert main(["serve", str(tmp_path), "--api-key-file", str(file)]) == 1
    assert "chmod 600" in capsys.readouterr().err


@pytest.mark.parametrize(("host", "port"), [("not an address", 1), ("127.0.0.1", 99999)])
def test_addresses_that_cannot_be(host, port):
    with pytest.raises(ConfigError):
        listen(host, port)
