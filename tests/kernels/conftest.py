"""Skip the native tests where there is no compiler; the reference tier then serves alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingle.kernels import cpu


@pytest.fixture(autouse=True)
def native() -> Iterator[None]:
    """Run with the native library, and give its thread count back afterwards."""
    if not cpu.available():
        pytest.skip(cpu.unavailable_reason())
    before = cpu.get_threads()
    yield
    cpu.set_threads(before)
