"""A fake hub with a small repository, and an empty cache to pull it into."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_hub import WEIGHTS, FakeHub, start

from ingle.hub import fetch


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with a small repository; the environment points to it and to an empty cache."""
    import huggingface_hub.constants

    fake = FakeHub(
        files={
            "config.json": b'{"model_type": "llama"}\n', "tokenizer.json": b"{}",
            "model.safetensors": WEIGHTS, "README.md": b"# tiny\n", "LICENSE-MODEL": b"MIT",
            "modeling_tiny.py": b"print('never')", "pytorch_model.bin": b"\x80\x04pickle",
            "original/model.safetensors": b"twice", "figure.png": b"png",
        },
        large={"model.safetensors", "pytorch_model.bin", "original/model.safetensors"},
    )  # fmt: skip
    server = start(fake)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HF_ENDPOINT", fake.endpoint)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(fetch, "FIRST_WAIT_SECONDS", 0.01)
    yield fake
    server.shutdown()
    server.server_close()
    assert not server.errors


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "hub" / "models--owner--tiny"
