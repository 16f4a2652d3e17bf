"""From the command line's MODEL to an engine that is ready, and what is known about the model."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingle.cli.admitting import DEFAULT
from ingle.engine.llm import LLM
from ingle.engine.storage import Quant
from ingle.errors import ModelNotFoundError
from ingle.models import resolve_model
from ingle.models.read import read_json, unknown_keys
from ingle.privacy.admission import admit
from ingle.privacy.policy import load_policy

if TYPE_CHECKING:
    from ingle.engine.engine import Engine
    from ingle.engine.request import SamplingParams
    from ingle.prompt.encoder import Encoder
    from ingle.prompt.tokenizer import Tokenizer
    from ingle.server.service import EngineService
    from ingle.weights.paging import MappedWeights

SHIPPED_NAME = "ingle-reasoner"


@dataclass(frozen=True)
class Loaded:
    """A model with its engine. examples: questions it was trained for, if it is the shipped one.
    mapped: the file of experts that stay on disk, if they do."""

    name: str
    tokenizer: Tokenizer
    engine: Engine
    defaults: SamplingParams
    parameters: int
    fingerprint: str
    examples: tuple[str, ...]
    encoder: Encoder
    mapped: MappedWeights | None


def load(
    model: str | None, quant: Quant = "auto", policy: str = DEFAULT, sealed: bool = True,
    **engine_options: Any,
) -> Loaded:  # fmt: skip
    """Load a model folder (None: the shipped reasoner) and set an engine up for it.

    policy, sealed: see cli/admitting.py; the policy is asked before any weights are mapped.
    engine_options: what `LLM` takes. Raises the typed errors of `ingle.errors`.
    """
    folder = resolve_model(model)
    admit(folder, load_policy(policy), sealed)
    if unknown := unknown_keys(read_json(folder / "config.json")):
        print(f"Keys of config.json not known here: {', '.join(unknown)}.", file=sys.stderr)
    llm = LLM(folder, quant, **engine_options)
    assert llm.tokenizer is not None
    if llm.mapped is not None:
        print(llm.mapped.notice(), file=sys.stderr)
    shipped = _is_shipped(folder)
    return Loaded(
        name=SHIPPED_NAME if shipped else folder.resolve().name,
        tokenizer=llm.tokenizer,
        engine=llm.engine,
        defaults=llm.default_params,
        parameters=llm.model.config.count_parameters(),
        fingerprint=_fingerprint(folder),
        examples=_examples() if shipped else (),
        encoder=llm.encoder,
        mapped=llm.mapped,
    )


def make_service(
    loaded: Loaded, name: str | None = None, pace: float = 0.0, bandwidth: float = 0.0
) -> EngineService:
    """The bridge between the server's loop and the loaded engine.

    name: the model's in the API. pace, bandwidth: see EngineService.
    """
    from ingle.server.service import EngineService, ServedModel

    model = ServedModel(
        name=name or loaded.name,
        fingerprint=loaded.fingerprint,
        created=int(time.time()),
        defaults=loaded.defaults,
        examples=loaded.examples,
        encoder=loaded.encoder,
    )
    return EngineService(loaded.engine, loaded.tokenizer, model, pace, bandwidth)


def _is_shipped(folder: Path) -> bool:
    try:
        return folder.resolve() == resolve_model(None).resolve()
    except ModelNotFoundError:
        return False


def _examples() -> tuple[str, ...]:
    """One question of every task first, so that a short list shows all that can be asked."""
    from ingle.tasks import TASKS, examples

    heads = {task.EXAMPLES[0] for task in TASKS.values()}
    return tuple(sorted(examples(), key=lambda text: text not in heads))


def _fingerprint(folder: Path) -> str:
    """Changes when the config or the size of a weight file does; a label, not a proof."""
    digest = sha256((folder / "config.json").read_bytes())
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(f"{file.name}:{file.stat().st_size}".encode())
    return f"fp_{digest.hexdigest()[:12]}"
