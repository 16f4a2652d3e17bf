"""Memory that a step has used stays with the process for the next one."""

from __future__ import annotations

import ctypes
from contextlib import suppress

# glibc's malloc.h; no other C library is asked
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 1 << 30


def keep_memory() -> None:
    """Tell glibc to keep what arrays of up to 1 GiB leave behind, for the rest of this process.

    Unasked it returns every array of more than 32 MiB to the system, and free memory at the end of
    its heap, so that each step of training pays for the same pages anew: the system has to find,
    clear and map them (docs/log.md). The process then stays as large as its largest step made it.
    Where the C library has no `mallopt` (macOS, musl) nothing changes.
    """
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST)
