"""The shipped reasoner, loaded once for all tests of the server that need real answers."""

from __future__ import annotations

from functools import cache

import torch

from ingle.engine.engine import Engine
from ingle.engine.llm import LLM


@cache
def shipped_engine() -> Engine:
    """Its engine, which may be served by one server after the other."""
    torch.set_num_threads(1)
    return LLM().engine
