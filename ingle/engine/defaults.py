"""A model folder's `generation_config.json`: what its authors recommend."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from ingle.engine.request import SamplingParams
from ingle.errors import ConfigError, IngleError


@dataclass(frozen=True)
class GenerationDefaults:
    """What a model's authors recommend: sampling parameters and where its outputs end."""

    params: SamplingParams
    eos_ids: tuple[int, ...] | None


def read_generation_config(folder: Path) -> GenerationDefaults:
    """Read `generation_config.json`; a folder without one has the library's defaults.

    Raises ConfigError for a file that is no JSON object or holds impossible values.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        return GenerationDefaults(SamplingParams(), None)
    try:
        values = json.loads(path.read_text("utf-8"))
        eos = values.get("eos_token_id")
        eos_ids = None if eos is None else tuple(map(int, eos if isinstance(eos, list) else [eos]))
        params = SamplingParams()
        if values.get("do_sample", True):
            names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
            given = {name: values[name] for name in names if values.get(name) is not None}
            params = replace(params, **given)
        else:
            params = replace(params, temperature=0.0)
    except (ValueError, TypeError, AttributeError, IngleError) as error:
        raise ConfigError(f"generation_config.json cannot be used: {error}") from error
    return GenerationDefaults(params, eos_ids)
