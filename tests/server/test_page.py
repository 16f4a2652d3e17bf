"""The chat page: what is served is what is in web/, under a policy that admits nothing foreign."""

from __future__ import annotations

import gzip
import json
import re
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[2]
WEB, STATIC = ROOT / "web", ROOT / "ingle" / "server" / "static"


def sources() -> dict[str, bytes]:
    kinds = {".html", ".css", ".js", ".svg"}
    return {file.name: file.read_bytes() for file in WEB.iterdir() if file.suffix in kinds}


def test_built_copy_equals_the_sources():
    built = {f.name: f.read_bytes() for f in STATIC.iterdir() if f.name != "manifest.json"}
    assert built == sources(), "run node web/build.mjs"
    manifest = json.loads((STATIC / "manifest.json").read_text())
    assert manifest == {name: sha256(data).hexdigest() for name, data in sources().items()}


def test_page_is_served_with_its_policy(live):
    page = live.client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert page.headers["referrer-policy"] == "no-referrer"
    for name in sources():
        if name != "index.html":
            reply = live.client.get(f"/static/{name}")
            assert reply.content == sources()[name]
            assert reply.headers["x-content-type-options"] == "nosniff"


def test_unchanged_files_are_not_sent_again(live):
    etag = live.client.get("/static/app.js").headers["etag"]
    reply = live.client.get("/static/app.js", headers={"If-None-Match": etag})
    assert (reply.status_code, reply.content) == (304, b"")


def test_ranges_are_not_served(live):
    reply = live.client.get("/static/app.js", headers={"Range": "bytes=0-1," * 1000})
    assert reply.status_code == 200


def test_nothing_inline_nothing_foreign_no_markup_from_strings():
    everything = b"\n".join(sources().values()).decode()
    urls = set(re.findall(r"https?://[^\s\"')]+", everything))
    assert urls == {"http://www.w3.org/2000/svg"}  # a namespace, never requested
    page = sources()["index.html"].decode()
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?![^>]*src=)", page)
    scripts = "".join(data.decode() for name, data in sources().items() if name.endswith(".js"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", scripts)


def test_page_is_small():
    assert sum(len(gzip.compress(data)) for data in sources().values()) < 30_000
