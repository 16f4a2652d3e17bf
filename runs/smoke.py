"""Ask a running server one question, as a client would, and check the answer: smoke test of CI."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request


def get(url: str, body: dict | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return reply.read()


def main(base: str) -> int:
    deadline = time.monotonic() + 120
    while True:
        try:
            ready = json.loads(get(f"{base}/ready"))
            break
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                print("smoke: the server did not come up within two minutes")
                return 1
            time.sleep(0.2)
    page = get(base + "/").decode()
    question = {"role": "user", "content": "47+85="}
    reply = json.loads(get(f"{base}/v1/chat/completions", {"messages": [question]}))
    message = reply["choices"][0]["message"]
    print(f"smoke: {ready['status']}, page {len(page)} bytes")
    print(f"smoke: thought {message['reasoning_content']!r}, answered {message['content']!r}")
    return 0 if "<html" in page and message["content"].strip() == "132" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
