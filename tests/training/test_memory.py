"""What a step leaves behind is there for the next one."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

# arrays of 96 MiB, as a step makes and drops them; glibc needs some steps until all find a place.
# Prints the page faults of the last step.
STEPS = """
import resource, sys, torch
from ingle.training.memory import keep_memory
if sys.argv[1] == "kept":
    keep_memory()
torch.set_num_threads(1)
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [torch.ones(24 << 20) for _ in range(2)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    found = subprocess.run(
        [sys.executable, "-c", STEPS, how], check=True, capture_output=True, text=True
    )
    return int(found.stdout)


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="glibc alone gives it back"
)
def test_pages_of_dropped_arrays_are_used_again() -> None:
    plain, kept = faults("plain"), faults("kept")
    assert plain > 20 * kept
    assert kept < 500
