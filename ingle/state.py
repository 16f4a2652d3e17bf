"""The one folder ingle keeps things in that are no results: quantised weights, digests."""

from __future__ import annotations

import os
from pathlib import Path


def state_folder() -> Path:
    """`$INGLE_CACHE`, else `ingle` in the user's cache folder; it need not exist."""
    if path := os.environ.get("INGLE_CACHE"):
        return Path(path).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ingle"
