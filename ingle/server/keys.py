"""API keys: a file that only its owner can read, of which the server remembers digests.

A line is `KEY` or `sha256:DIGEST`, then optionally, divided by blanks or commas, `name=WORD` and
limits that replace the defaults: `requests=N` and `tokens=N` a minute, `concurrency=N`, where N may
be `none`. `#` begins a comment line. A key never comes from a command line, an environment
variable or a URL: all three are visible to others or end up in logs.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from ingle.errors import IngleError
from ingle.server.limits import Limits

MIN_KEY_LENGTH = 16
MAX_FILE_BYTES = 1 << 20
LIMIT_NAMES = ("requests", "tokens", "concurrency")


class KeyFileError(IngleError):
    """An API key file that cannot be trusted or read."""

    code = "invalid_key_file"


@dataclass(frozen=True)
class ApiKey:
    """One key: what the log calls it, the SHA-256 of its text, what its holder may ask for."""

    name: str
    digest: bytes
    limits: Limits = field(default_factory=Limits)


def new_key() -> str:
    """A fresh key of 256 random bits; its prefix lets scanners for leaked secrets find it."""
    return f"sk-ingle-{secrets.token_urlsafe(32)}"


def key_line(key: str) -> str:
    """The line of a key file that admits the key without holding it."""
    return f"sha256:{sha256(key.encode()).hexdigest()}"


def read_key_file(path: Path, defaults: Limits | None = None) -> tuple[ApiKey, ...]:
    """The keys in a file; those without limits of their own have the default ones.

    Raises KeyFileError if the file is missing, open to other users, empty, or holds a line that
    cannot be read or a key that is short or there twice. No error quotes the file.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError:
        raise KeyFileError("The API key file cannot be read.") from None
    if mode & 0o077:
        raise KeyFileError(
            f"The API key file is open to other users (mode {mode:04o}). Run chmod 600 on it."
        )
    if len(content) > MAX_FILE_BYTES:
        raise KeyFileError("The API key file is larger than 1 MiB.")
    keys: list[ApiKey] = []
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip() and not line.strip().startswith(b"#"):
            key = _read_line(line.strip(), number, len(keys) + 1, defaults or Limits())
            if any(key.digest == other.digest or key.name == other.name for other in keys):
                raise KeyFileError(f"Line {number} of the API key file repeats a key or a name.")
            keys.append(key)
    if not keys:
        raise KeyFileError("The API key file holds no key. Put one key on each line.")
    return tuple(keys)


def _read_line(line: bytes, number: int, ordinal: int, defaults: Limits) -> ApiKey:
    where = f"Line {number} of the API key file"
    text, *options = re.split(rb"[\s,]+", line.rstrip(b" \t,"))
    name, limits = str(ordinal), defaults
    for option in options:
        word, _, value = option.decode("ascii", "replace").partition("=")
        if word == "name" and re.fullmatch(r"[\w.-]{1,64}", value, re.ASCII):
            name = value
        elif word in LIMIT_NAMES and re.fullmatch(r"none|[1-9]\d{0,11}", value, re.ASCII):
            limits = replace(limits, **{word: None if value == "none" else int(value)})
        else:
            raise KeyFileError(
                f"{where} has an option that cannot be read: after the key come name=WORD, "
                "requests=N, tokens=N and concurrency=N, where N is a positive number or none."
            )
    return ApiKey(name, _digest(text, where), limits)


def _digest(text: bytes, where: str) -> bytes:
    if text.startswith(b"sha256:"):
        if not re.fullmatch(rb"sha256:[0-9a-fA-F]{64}", text):
            raise KeyFileError(f"{where} has a digest that is not 64 hexadecimal digits.")
        return bytes.fromhex(text[7:].decode())
    if len(text) < MIN_KEY_LENGTH:
        raise KeyFileError(f"{where} has a key of fewer than {MIN_KEY_LENGTH} characters.")
    return sha256(text).digest()
