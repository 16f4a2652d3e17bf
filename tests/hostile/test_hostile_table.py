"""Every class of hostile request against `ingle serve`: refused by name, and nothing is harmed.

After each class the server is healthy, gives the same answer as before, has no file open that it
had not, and no more than five per cent more memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ingle.server.keys import key_line, new_key
from tests.hostile.bodies import BODIES
from tests.hostile.target import KNOWN, Target, serving
from tests.hostile.wires import WIRES

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("hostile")
    with serving(folder, "--max-sequences", "8", "--max-waiting", "24") as running:
        for cases in BODIES.values():  # what is imported or built at its first use is no harm
            for path, body, _ in cases:
                running.post(path, body)
        running.measure()
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("row", BODIES)
def test_bodies(target: Target, row: int) -> None:
    for path, body, statuses in BODIES[row]:
        target.refused(target.post(path, body), *statuses)
    target.check_unharmed()


@pytest.mark.slow
@pytest.mark.parametrize("row", WIRES)
def test_wires(target: Target, row: str) -> None:
    WIRES[row](target)
    target.check_unharmed()


@pytest.mark.slow
def test_keys(tmp_path: Path) -> None:
    """1, 3, 4, 51: every door asks for the key, in either header, and nothing else opens it."""
    key = new_key()
    file = tmp_path / "keys"
    file.write_text(key_line(key) + "\n")
    file.chmod(0o600)
    with serving(tmp_path, "--api-key-file", str(file), key=key) as target:
        strange = httpx.Client(base_url=target.url, timeout=60, trust_env=False)
        paths = ["/metrics", "/docs", "/openapi.json", "/v1/models", "/v1/models/", "//v1/models",
                 "/v1/%2e%2e/metrics", "/v1/../metrics", "/user/balance", "/tokenize", CHAT,
                 "/v1/responses/x", "/nope", "/%6detrics", "/METRICS", "/metrics;x", "/metrics?x",
                 f"/v1/models?api_key={key}", f"/v1/models?key={key}"]  # fmt: skip
        for path in paths:
            for method in ("GET", "HEAD", "OPTIONS", "POST", "DELETE"):
                assert strange.request(method, path).status_code == 401, (method, path)
        assert strange.get("/health").status_code == 200
        for headers in ({"x-api-key": key}, {"Authorization": f"Bearer {key}"}):
            assert strange.get("/v1/models", headers=headers).status_code == 200
            assert strange.post(CHAT, json=KNOWN, headers=headers).status_code == 200
        for wrong in [key[:end] for end in range(1, len(key))] + [key + "x", key.swapcase()]:
            assert strange.get("/v1/models", headers={"x-api-key": wrong}).status_code == 401
        arguments = Path(f"/proc/{target.pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{target.pid}/environ").read_bytes()
        assert key.encode() not in arguments + environment + target.log.read_bytes()
        strange.close()
        target.check_unharmed()
