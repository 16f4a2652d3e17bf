"""A trained model gets other words: tokens it has keep their rows, new ones begin as the mean of
what spelled them until now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ingle.errors import ConfigError
from ingle.models import load_model, save_model
from ingle.prompt.tokenizer import Tokenizer
from ingle.training.origin import derived_from
from ingle.training.tokenizer import build_tokenizer

_TABLES = ("embed_tokens.weight", "lm_head.weight")


def exchange_words(parent: Path, folder: Path, tasks: Sequence[str]) -> None:
    """Write to `folder` the model of `parent` (fp32) with a tokenizer of the words of `tasks`.

    Raises ConfigError where the parent's tokenizer is not of this package's kind, whose tokens
    that are no words have the same number in every vocabulary.
    """
    model = load_model(parent, torch.float32)
    size = model.config.vocab_size
    build_tokenizer(folder, size, model.config.max_position_embeddings, tasks)
    mixing_VV = torch.zeros(size, size)
    for token, pieces in enumerate(_spelled(Tokenizer.load(parent), Tokenizer.load(folder))):
        mixing_VV[token, pieces] = 1 / len(pieces)
    with torch.no_grad():
        for name, table_VH in model.named_parameters():
            if name.endswith(_TABLES):
                table_VH.copy_(mixing_VV @ table_VH)
    save_model(model, folder, torch.float32)
    derived_from(parent, folder.name, {"operation": "exchange words"}).write(folder, 0)


def _spelled(old: Tokenizer, new: Tokenizer) -> list[Tensor]:
    """For each new token the old ones that it was written with; one that was never a word is
    itself."""
    known = {old.token_bytes(token): token for token in range(old.vocab_size)}
    spelled = []
    for token in range(new.vocab_size):
        text = new.token_bytes(token)
        if new.is_special(token):
            pieces = [token]
        elif text in known:
            pieces = [known[text]]
        else:
            pieces = [known.get(bytes([byte]), -1) for byte in text]
        if not pieces or min(pieces) < 0:
            raise ConfigError(f"The parent's tokenizer cannot spell {text!r}.")
        spelled.append(torch.tensor(pieces))
    return spelled
