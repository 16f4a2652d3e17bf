from __future__ import annotations

from pathlib import Path

import pytest

from ingle.prompt.tokenizer import Tokenizer
from ingle.training.tokenizer import build_tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    return Tokenizer.load(folder)
